"""The stages around labels that no model wrote, and around how labels are combined: label files, crowd methods, fits on devel."""

import json
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
from scipy.special import softmax

from raw2s.config import RunConfig
from raw2s.errors import StageFailed
from raw2s.evaluation.calibration import calibration_metrics, fit_temperature, negative_log_likelihood
from raw2s.labeling.crowd import Method, Vote, combine_votes
from raw2s.labeling.label_files import Annotation, class_probabilities, file_fingerprint, ranked_texts, read_label_file
from raw2s.labeling.table import BEAMS, CLASSES, CLASSIFICATION, REJECTS, VOTES, read_table, write_table
from raw2s.labeling.units import Row
from raw2s.labeling.weights import fit_weights
from raw2s.pipeline.labelling import ANSWERS, LABELS, REJECTED
from raw2s.pipeline.stages import Metrics, Settings, StageContext
from raw2s.tasks import Task, get_task

VOTES_FILE, FIT = "votes.parquet", "fit.json"


def read_labels(context: StageContext, config: RunConfig, seed: int, settings: Settings) -> Metrics:
    """A teacher that is a file: its labels of B as answers, its annotators' votes, and how both compare with B's ground truth."""
    task, name = get_task(config.task.name), settings["teacher"]
    file = next(t.file for t in config.teachers if t.name == name)
    if file is None or file_fingerprint(file) != settings["fingerprint"]:
        raise StageFailed(f"{file} has changed since the run began; run again")
    examples = {example["id"]: example for example in context.read_examples("split", "student")}
    annotations = read_label_file(file, task.classes)
    own = [annotation for annotation in annotations if annotation.id in examples]
    predicted = _answers(context, task, own, list(examples))
    write_table(context.out / VOTES_FILE, [] if task.kind == "generation" else _file_votes(name, own), VOTES)
    write_table(context.out / REJECTED, [], REJECTS)
    unparsable = {"unparsable": sum(answer is None for answer in predicted.values())} if task.kind == "generation" else {}
    gold, given = [examples[i]["gold"] for i in predicted], [[] if answer is None else answer for answer in predicted.values()]
    counts = task.utterance_counts(gold, given)
    np.save(context.out / "counts.npy", counts)
    score = {f"{task.metric}_on_b": float(task.score(counts.mean(axis=0)))} if predicted else {}
    return {
        "items": len(predicted),
        "missing": len(examples) - len(predicted),
        "ids_not_in_b": len({annotation.id for annotation in annotations} - examples.keys()),
        "annotators": len({annotation.annotator for annotation in own}),
        **unparsable,
        **score,
    }


def _answers(context: StageContext, task: Task, annotations: list[Annotation], ids: list[int]) -> dict[int, Any]:
    """Write them in the order of `ids`; returns what they say, in the form that the metric compares, by id."""
    if task.kind == "generation":
        texts = ranked_texts(annotations)
        write_table(context.out / ANSWERS, ({"id": i, "texts": texts[i]} for i in ids if i in texts), BEAMS)
        return {i: task.parse(texts[i][0]) for i in ids if i in texts}
    probabilities = class_probabilities(annotations)
    write_table(context.out / ANSWERS, logit_rows({i: probabilities[i] for i in ids if i in probabilities}), CLASSES)
    return {i: task.classes[int(np.argmax(probabilities[i]))] for i in ids if i in probabilities}


def logit_rows(probabilities: dict[int, list[float]]) -> list[Row]:
    """Probabilities as logits, whose softmax they are; that of 0 is -inf."""
    with np.errstate(divide="ignore"):
        return [{"id": i, "logits": np.log(own).tolist()} for i, own in probabilities.items()]


def _file_votes(teacher: str, annotations: list[Annotation]) -> list[Row]:
    return [
        {"id": a.id, "worker": f"{teacher}/{a.annotator}".rstrip("/"), "label": int(np.argmax(a.probabilities))}
        for a in annotations
    ]


def combine(context: StageContext, config: RunConfig, seed: int, settings: Settings) -> Metrics:
    """The votes of all teachers, a file's annotators each for itself, combined by a crowd method into a table of one teacher."""
    task, method = get_task(config.task.name), cast(Method, settings["method"])
    table, names = read_table(context.inputs["label"].folder / LABELS)
    kept = {row["id"] for row in table}
    votes: list[Vote] = []
    for place, name in enumerate(names):
        if artifact := context.inputs.get(f"answers:{name}"):
            rows = pq.read_table(artifact.folder / VOTES_FILE).to_pylist()
            votes += [(row["id"], row["worker"], row["label"]) for row in rows if row["id"] in kept]
        else:
            votes += [(row["id"], name, int(np.argmax(row["logits"][place]))) for row in table]
    combined = combine_votes(votes, method, len(task.classes), seed)
    rows = logit_rows({row["id"]: combined[row["id"]] for row in table})
    write_table(context.out / LABELS, ({"id": row["id"], "logits": [row["logits"]]} for row in rows), CLASSIFICATION, [method])
    gold = {example["id"]: example["gold"] for example in context.read_examples("split", "student")}
    right = [task.classes[int(np.argmax(own))] == gold[i] for i, own in combined.items()]
    return {
        "items": len(rows),
        "votes": len(votes),
        "workers": len({w for _, w, _ in votes}),
        "accuracy_on_b": float(np.mean(right)),
    }


def fit_on_devel(context: StageContext, config: RunConfig, seed: int, settings: Settings) -> Metrics:
    """From the models' answers on devel: a temperature each, and the weights of the smallest NLL; `fit.json` holds both."""
    task = get_task(config.task.name)
    labels = {
        example["id"]: task.classes.index(example["target"]) for example in context.read_examples("validation", "validation")
    }
    names = [role.removeprefix("answers:") for role in context.inputs if role.startswith("answers:")]
    tables = [pq.read_table(context.inputs[f"answers:{name}"].folder / ANSWERS) for name in names]
    answers = [dict(zip(table["id"].to_pylist(), table["logits"].to_pylist(), strict=True)) for table in tables]
    ids = [i for i in labels if all(i in own for own in answers)]
    labels_P = np.array([labels[i] for i in ids], dtype=np.int64)
    metrics: Metrics = {"items": len(ids)}
    temperatures, probabilities = {}, []
    for name, own in zip(names, answers, strict=True):
        logits_PK = np.array([own[i] for i in ids], dtype=np.float64)
        temperatures[name] = fit_temperature(logits_PK, labels_P) if settings["calibrate"] else 1.0
        metrics |= {f"{key}/{name}": value for key, value in calibration_metrics(logits_PK, labels_P).items()}
        if settings["calibrate"]:
            after = calibration_metrics(logits_PK, labels_P, temperatures[name])
            metrics |= {f"temperature/{name}": temperatures[name]} | {f"{key}_calibrated/{name}": v for key, v in after.items()}
        probabilities.append(softmax(logits_PK / temperatures[name], axis=1))
    mixed_IPK = np.array(probabilities)
    weights_I = fit_weights(mixed_IPK, labels_P)
    weights = dict(zip(names, weights_I.tolist(), strict=True))
    (context.out / FIT).write_text(json.dumps({"temperatures": temperatures, "weights": weights}, indent=1) + "\n")
    nll = {"uniform": mixed_IPK.mean(axis=0), "fitted": np.tensordot(weights_I, mixed_IPK, axes=1)}
    return (
        metrics
        | {f"weight/{name}": weight for name, weight in weights.items()}
        | {f"nll_mixed/{key}": negative_log_likelihood(mixed_PK, labels_P) for key, mixed_PK in nll.items()}
    )
