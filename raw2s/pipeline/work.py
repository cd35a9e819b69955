"""What the stages do. Each function fills `context.out` and returns the metrics of its manifest."""

from pathlib import Path
from typing import Any, cast

import numpy as np

from raw2s.config import RunConfig, StudentConfig, TrainingConfig
from raw2s.labeling.actors import BeamActor, ClassActor, Pool, Progress, by_id, dataset_of, prompt_units, through
from raw2s.labeling.table import (
    CLASSIFICATION,
    GENERATION,
    label_classes,
    label_generation,
    read_table,
    score_candidates,
    write_table,
)
from raw2s.labeling.targets import class_rows, preference_pairs, text_rows
from raw2s.pipeline.stages import StageContext, read_jsonl, write_jsonl
from raw2s.tasks import Task, get_task
from raw2s.tasks.slurp import draw_slurp, held_out_slurp
from raw2s.training.fit import fit
from raw2s.training.job import Job, LossSettings
from raw2s.training.rows import Form, TextTarget, TrainingRow

Metrics = dict[str, Any]
Settings = dict[str, Any]


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


def label(context: StageContext, config: RunConfig, seed: int, settings: Settings) -> Metrics:
    """Every teacher's labels of B, as one raw table."""
    task = get_task(config.task.name)
    ids, prompts = _prompts(context.read_examples("split", "student"))
    pools = teacher_pools(context, config)
    passes = 2 * len(pools) if task.kind == "generation" else len(pools)
    common = {"batch_size": settings["batch_size"], "progress": Progress(context.board, context.name, passes * len(ids))}
    if task.kind == "generation":
        rows = label_generation(ids, prompts, pools, beams=settings["beams"], max_new_tokens=settings["max_new_tokens"], **common)
        schema, extra = GENERATION, {"candidates": len(rows)}
    else:
        rows = label_classes(ids, prompts, pools, task.classes, **common)
        schema, extra = CLASSIFICATION, {}
    write_table(context.out / "labels.parquet", rows, schema, [pool.name for pool in pools])
    return {"prompts": len(ids), **extra}


def train_student(context: StageContext, config: RunConfig, seed: int, settings: Settings) -> Metrics:
    """The student on B's weak labels by one method."""
    task = get_task(config.task.name)
    student: StudentConfig = settings["student"]
    table, names = read_table(context.inputs["label"].folder / "labels.parquet")
    weights = [settings["weights"][name] for name in names]
    prompts = {example["id"]: example["prompt"] for example in context.read_examples("split", "student")}
    if task.kind == "classification":
        rows = class_rows(prompts, table, weights=weights, confidence=student.confidence)
    else:
        rows = text_rows(
            prompts, table, method="joint" if student.method == "joint" else "multi", weights=weights, score=settings["score"],
            confidence=student.confidence, merge=not student.uses_edl or student.form == "expected",
        )  # fmt: skip
    fields = LossSettings.__dataclass_fields__.keys() & student.model_dump().keys()
    loss = LossSettings(edl=student.uses_edl, **{name: getattr(student, name) for name in fields})
    return _train(context, config, task, rows, settings["model"], settings["training"], loss, seed)


def make_pairs(context: StageContext, config: RunConfig, seed: int, settings: Settings) -> Metrics:
    """The student's own beams on B, scored by every teacher, as preference pairs with the student's reference values."""
    ids, prompts = _prompts(context.read_examples("split", "student")[: settings["prompts"]])
    pools = teacher_pools(context, config)
    student = student_pool(context.inputs["student"].folder, config)
    progress = Progress(context.board, context.name, (2 + len(pools)) * len(ids))
    dataset = through(
        dataset_of(prompt_units(ids, prompts, settings["batch_size"])), BeamActor, student,
        beams=settings["beams"], max_new_tokens=settings["max_new_tokens"], progress=progress,
    )  # fmt: skip
    beams = by_id(dataset.take_all(), f"beams:{student.name}")
    texts = {i: [candidate["text"] for candidate in beams[i]] for i in ids}
    scored = score_candidates(ids, prompts, texts, [*pools, student], batch_size=settings["batch_size"], progress=progress)
    candidates = {
        i: [
            {
                "text": text,
                "reference": sum(scored[student.name][i][index]["words"]),
                "words": [scored[pool.name][i][index]["words"] for pool in pools],
                "tokens": [scored[pool.name][i][index]["tokens"] for pool in pools],
            }
            for index, text in enumerate(texts[i])
        ]
        for i in ids
    }
    weights = [settings["weights"][pool.name] for pool in pools]
    pairs = preference_pairs(ids, dict(zip(ids, prompts, strict=True)), candidates, weights, settings["score"])
    write_jsonl(context.out / "pairs.jsonl", pairs)
    return {"pairs": len(pairs), "without_pair": len(ids) - len(pairs)}


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
    ids, prompts = _prompts(examples)
    pool = student_pool(context.inputs["model"].folder, config)
    progress = Progress(context.board, context.name, len(ids))
    dataset = dataset_of(prompt_units(ids, prompts, settings["batch_size"]))
    if task.kind == "generation":
        dataset = through(
            dataset, BeamActor, pool, beams=settings["beams"], max_new_tokens=settings["max_new_tokens"], progress=progress
        )
        answers = by_id(dataset.take_all(), f"beams:{pool.name}")
        texts = [answers[i][0]["text"] for i in ids]
    else:
        dataset = through(dataset, ClassActor, pool, classes=task.classes, progress=progress)
        logits = by_id(dataset.take_all(), f"logits:{pool.name}")
        texts = [task.classes[int(np.argmax(logits[i]))] for i in ids]
    parsed = [task.parse(text) for text in texts]
    predicted = [[] if answer is None else answer for answer in parsed] if task.kind == "generation" else parsed
    gold = [example["gold"] for example in examples]
    counts = task.utterance_counts(gold, predicted)
    np.save(context.out / "counts.npy", counts)
    write_jsonl(
        context.out / "predictions.jsonl",
        [{"id": i, "output": t, "predicted": p, "gold": g} for i, t, p, g in zip(ids, texts, predicted, gold, strict=True)],
    )
    metrics: Metrics = {task.metric: float(task.score(counts.mean(axis=0)))}
    if task.kind == "generation":
        metrics["empty"] = sum(answer == [] for answer in predicted) / len(ids)
        metrics["unparsable"] = sum(answer is None for answer in parsed) / len(ids)
    return metrics


def ground_truth_row(example: dict[str, Any], task: Task) -> TrainingRow:
    if task.kind == "classification":
        return TrainingRow(
            id=example["id"], prompt=example["prompt"], probabilities=[float(c == example["target"]) for c in task.classes]
        )
    return TrainingRow(id=example["id"], prompt=example["prompt"], targets=[TextTarget(text=example["target"], weights=[1.0])])


def teacher_pools(context: StageContext, config: RunConfig) -> list[Pool]:
    """One pool per teacher, in the config's order."""
    return [
        Pool(t.name, str(context.inputs[f"teacher:{t.name}"].folder / "model"), t.replicas, t.num_cpus, t.num_gpus)
        for t in config.teachers
    ]


def student_pool(folder: Path, config: RunConfig) -> Pool:
    """A pool for the model trained in `folder`, on the resources of the student."""
    return Pool("student", str(folder / "model"), config.student.replicas, config.student.num_cpus, config.student.num_gpus)


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
        model,
        task.kind,
        task.classes,
        form,
        str(train_file),
        str(validation_file),
        training,
        loss,
        seed,
        context.board,
        context.name,
    )
    metrics = fit(job, context.out, context.callbacks)
    validation_file.unlink()  # it is the split's; the training rows stay, for they are the evidence of what was learned
    return metrics


def _prompts(examples: list[dict[str, Any]]) -> tuple[list[int], list[str]]:
    return [example["id"] for example in examples], [example["prompt"] for example in examples]
