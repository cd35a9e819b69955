"""What the stages do. Each function fills `context.out` and returns the metrics of its manifest."""

import json
from typing import Any, cast

import numpy as np

from raw2s.config import RunConfig, StudentConfig, TrainingConfig
from raw2s.errors import StageFailed
from raw2s.labeling.table import in_order, read_table
from raw2s.labeling.targets import class_rows, text_rows
from raw2s.labeling.units import Progress
from raw2s.pipeline.combining import FIT
from raw2s.pipeline.labelling import LABELS, answers_of, student_pool
from raw2s.pipeline.stages import Metrics, Settings, StageContext, read_jsonl, write_jsonl
from raw2s.tasks import Task, get_task
from raw2s.tasks.slurp import draw_slurp, held_out_slurp
from raw2s.training.fit import fit
from raw2s.training.job import Job, LossSettings
from raw2s.training.rows import Form, TextTarget, TrainingRow


def split(context: StageContext, config: RunConfig, seed: int, settings: Settings) -> Metrics:
    """A and B as prompts and targets, one JSONL each."""
    task = get_task(settings["task"])
    parts = draw_slurp(settings["draw_from"], settings["n_teacher"], settings["n_student"], seed)
    for name, rows in parts.items():
        write_jsonl(context.out / f"{name}.jsonl", task.examples(rows, settings["prompt"]))
    return {name: len(rows) for name, rows in parts.items()}


def held_out(context: StageContext, config: RunConfig, seed: int, settings: Settings) -> Metrics:
    """The validation (devel) or test utterances, the same for every seed."""
    task, part = get_task(settings["task"]), settings["part"]
    rows = held_out_slurp(part, settings["size"])
    write_jsonl(context.out / f"{part}.jsonl", task.examples(rows, settings["prompt"]))
    return {part: len(rows)}


def train_on_ground_truth(context: StageContext, config: RunConfig, seed: int, settings: Settings) -> Metrics:
    """A teacher on A, or the ceiling on B."""
    task = get_task(config.task.name)
    rows = [ground_truth_row(example, task) for example in context.read_examples("split", settings["part"])]
    return _train(context, config, task, rows, settings["model"], settings["training"], LossSettings(), seed)


def train_student(context: StageContext, config: RunConfig, seed: int, settings: Settings) -> Metrics:
    """The student on B's weak labels by one method."""
    task = get_task(config.task.name)
    student: StudentConfig = settings["student"]
    table, names = read_table(context.inputs["label"].folder / LABELS)
    fitted = json.loads((context.inputs["fit"].folder / FIT).read_text()) if "fit" in context.inputs else {}
    by_name = fitted["weights"] if settings["weights"] == "devel" else settings["weights"]
    weights = [by_name.get(name, 0.0) for name in names]
    prompts = {example["id"]: example["prompt"] for example in context.read_examples("split", "student")}
    if task.kind == "classification":
        temperatures = [fitted.get("temperatures", {}).get(name, 1.0) for name in names]
        rows = class_rows(prompts, table, weights=weights, confidence=student.confidence, temperatures=temperatures)
    else:
        rows = text_rows(
            prompts, table, method="joint" if student.method == "joint" else "multi", weights=weights, score=settings["score"],
            confidence=student.confidence, merge=not student.uses_edl or student.form == "expected",
        )  # fmt: skip
    labelled = {row["id"] for row in table}
    if not rows:
        raise StageFailed(
            f"no teacher of weight above zero has labelled any of the {len(labelled)} items; give another teacher weight"
        )
    fields = LossSettings.__dataclass_fields__.keys() & student.model_dump().keys()
    loss = LossSettings(edl=student.uses_edl, **{name: getattr(student, name) for name in fields})
    without = {"without_label": len(labelled) - len(rows)} if len(rows) < len(labelled) else {}
    return without | _train(context, config, task, rows, settings["model"], settings["training"], loss, seed)


def train_preference(context: StageContext, config: RunConfig, seed: int, settings: Settings) -> Metrics:
    """Conservative DPO from the fine-tuned student (Eq. 12)."""
    task = get_task(config.task.name)
    rows = cast(list[TrainingRow], read_jsonl(context.inputs["pairs"].folder / "pairs.jsonl"))
    loss = LossSettings(beta=settings["beta"], label_smoothing=settings["label_smoothing"])
    model = str(context.inputs["student"].folder / "model")
    return _train(context, config, task, rows, model, settings["training"], loss, seed, form="preference")


def test(context: StageContext, config: RunConfig, seed: int, settings: Settings) -> Metrics:
    """A model's predictions on the test set and its score."""
    task = get_task(config.task.name)
    examples = context.read_examples("test", "test")
    prompts = {example["id"]: example["prompt"] for example in examples}
    pool = student_pool(context.inputs["model"].folder, config)
    progress = Progress(context.board, context.name, len(prompts))
    answered = answers_of(pool, task, prompts, context.parts, settings, progress)
    if answered.rejected:  # left out, it would flatter the score
        i, reason = next(iter(answered.rejected.items()))
        raise StageFailed(f"{len(answered.rejected)} of {len(prompts)} test prompts cannot be answered (id {i}): {reason}")
    answers = in_order(answered.answers, prompts)
    if task.kind == "generation":
        texts = [own[0] for own in answers["texts"].to_pylist()]
    else:
        texts = [task.classes[int(np.argmax(logits))] for logits in answers["logits"].to_pylist()]
    parsed = [task.parse(text) for text in texts]
    predicted = [[] if answer is None else answer for answer in parsed] if task.kind == "generation" else parsed
    gold = [example["gold"] for example in examples]
    counts = task.utterance_counts(gold, predicted)
    np.save(context.out / "counts.npy", counts)
    write_jsonl(
        context.out / "predictions.jsonl",
        [{"id": i, "output": t, "predicted": p, "gold": g} for i, t, p, g in zip(prompts, texts, predicted, gold, strict=True)],
    )
    metrics: Metrics = {task.metric: float(task.score(counts.mean(axis=0)))}
    if task.kind == "generation":
        metrics["empty"] = sum(answer == [] for answer in predicted) / len(prompts)
        metrics["unparsable"] = sum(answer is None for answer in parsed) / len(prompts)
    return metrics


def ground_truth_row(example: dict[str, Any], task: Task) -> TrainingRow:
    if task.kind == "classification":
        return TrainingRow(
            id=example["id"], prompt=example["prompt"], probabilities=[float(c == example["target"]) for c in task.classes]
        )
    return TrainingRow(id=example["id"], prompt=example["prompt"], targets=[TextTarget(text=example["target"], weights=[1.0])])


def _train(
    context: StageContext,
    config: RunConfig,
    task: Task,
    rows: list[TrainingRow],
    model: str,
    training: TrainingConfig,
    loss: LossSettings,
    seed: int,
    form: Form | None = None,
) -> Metrics:
    train_file, validation_file = context.out / "train.jsonl", context.out / "validation.jsonl"
    write_jsonl(train_file, rows)
    write_jsonl(
        validation_file, [ground_truth_row(example, task) for example in context.read_examples("validation", "validation")]
    )
    form = form or ("classification" if task.kind == "classification" else "supervised")
    job = Job(
        model, config.task.name, task.kind, task.classes, form, str(train_file), str(validation_file), training, loss, seed,
        context.board, context.name,
    )  # fmt: skip
    metrics = fit(job, context.out, context.parts, context.callbacks)
    validation_file.unlink()  # it is the split's; the training rows stay, for they are the evidence of what was learned
    return metrics
