"""The stages that label: each teacher's answers, the weak-label table made of them, and the preference pairs."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import ray

from raw2s.config import RunConfig
from raw2s.errors import StageFailed
from raw2s.labeling.actors import BeamActor, ClassActor, convert_model
from raw2s.labeling.cross_scores import Known, cross_score
from raw2s.labeling.table import (
    BEAMS,
    CLASSES,
    CLASSIFICATION,
    GENERATION,
    REJECTS,
    generation_rows,
    in_order,
    merged_texts,
    read_table,
    write_table,
)
from raw2s.labeling.targets import preference_pairs
from raw2s.labeling.units import Answered, Pool, Progress, Row, Teacher, prompt_units, run_pass
from raw2s.pipeline.artifacts import MANIFEST, damage
from raw2s.pipeline.stages import Metrics, Settings, StageContext, write_jsonl
from raw2s.tasks import Task, get_task

ANSWERS, REJECTED, LABELS = "answers.parquet", "rejects.parquet", "labels.parquet"
CONVERTED = "model"


def convert(context: StageContext, config: RunConfig, seed: int, settings: Settings) -> Metrics:
    """A teacher as CTranslate2 reads it, made where the teacher's actors run. Raises StageFailed where that cannot be done."""
    pool = teacher_pool(context, config, settings["teacher"], "teacher")
    task = ray.remote(convert_model).options(
        num_cpus=pool.num_cpus, resources=pool.resources or None, label_selector=pool.label_selector or None, max_retries=0
    )
    try:
        ray.get(task.remote(pool.model, context.out / CONVERTED))
    except ray.exceptions.RayTaskError as error:
        raise StageFailed(f"{' '.join(str(error.cause).split())}; set backend: torch for teacher {pool.name}") from error
    return {}


def answer(context: StageContext, config: RunConfig, seed: int, settings: Settings) -> Metrics:
    """One teacher's top beams, or class logits, for every prompt of B, or of devel where that is the input."""
    prompts = _prompts(context)
    pool = teacher_pool(context, config, settings["teacher"], "teacher")
    progress = Progress(context.board, context.name, len(prompts))
    converted = context.inputs["converted"].folder / CONVERTED if "converted" in context.inputs else None
    answered = answers_of(pool, get_task(config.task.name), prompts, context.parts, settings, progress, converted)
    pq.write_table(in_order(answered.answers, prompts), context.out / ANSWERS)
    rejected = _write_rejects(context, config, _reject_rows(pool.name, answered.rejected), len(prompts))
    return {"prompts": len(answered.answers), **rejected, "prompts_per_second": answered.prompts_per_second}


def answers_of(
    pool: Pool,
    task: Task,
    prompts: Mapping[int, str],
    parts: Path,
    settings: Settings,
    progress: Progress,
    converted: Path | None = None,
) -> Answered:
    """A model's top beams (`BEAMS`; by CTranslate2 with `converted`) or class logits (`CLASSES`) for every prompt."""
    make: Callable[[], Teacher]
    if task.kind == "generation":
        make, schema = partial(BeamActor, pool, settings["beams"], settings["max_new_tokens"], converted), BEAMS
    else:
        make, schema = partial(ClassActor, pool, task.classes), CLASSES
    units = prompt_units(list(prompts), list(prompts.values()), settings["batch_size"])
    return run_pass(make, units, pool, schema=schema, folder=parts / "answers", progress=progress)


def label(context: StageContext, config: RunConfig, seed: int, settings: Settings) -> Metrics:
    """All teachers' labels of B as one raw table; for text after every teacher that is a model has scored every candidate."""
    asked = _prompts(context)
    names = [teacher.name for teacher in config.teachers]
    folders = {name: context.inputs[f"answers:{name}"].folder for name in names}
    answers = {name: pq.read_table(folder / ANSWERS) for name, folder in folders.items()}
    rejects = [row for folder in folders.values() for row in pq.read_table(folder / REJECTED).to_pylist()]
    refused = {row["id"] for row in rejects}
    prompts = {i: prompt for i, prompt in asked.items() if i not in refused}
    is_text = get_task(config.task.name).kind == "generation"
    column = "texts" if is_text else "logits"
    given = [dict(zip(table["id"].to_pylist(), table[column].to_pylist(), strict=True)) for table in answers.values()]
    labelled: set[int] = set().union(*given)
    rejects += [{"id": i, "teacher": None, "reason": "no teacher has a label for it"} for i in prompts if i not in labelled]
    prompts = {i: prompt for i, prompt in prompts.items() if i in labelled}
    if not is_text:
        logits = ({"id": i, "logits": [own.get(i) for own in given]} for i in prompts)
        write_table(context.out / LABELS, logits, CLASSIFICATION, names)
        return _write_rejects(context, config, rejects, len(asked)) | {"prompts": len(prompts)}

    candidates = {i: merged_texts([own.get(i, []) for own in given]) for i in prompts}
    pools = [teacher_pool(context, config, name, f"teacher:{name}") for name in names if f"teacher:{name}" in context.inputs]
    scores = cross_score(
        prompts, candidates, pools, known=known_scores(context, [pool.name for pool in pools]),
        batch_size=settings["batch_size"], folder=context.parts,
        progress=Progress(context.board, context.name, len(pools) * len(prompts)),
    )  # fmt: skip
    for name, scored in scores.items():
        rejects += _reject_rows(name, scored.answered.rejected)
        candidates = {i: own for i, own in candidates.items() if i not in scored.answered.rejected}
    rows = generation_rows(candidates, given, [scores[name].of if name in scores else None for name in names])
    count = write_table(context.out / LABELS, rows, GENERATION, names)
    rates = {
        f"prompts_per_second/{name}": scored.answered.prompts_per_second
        for name, scored in scores.items()
        if scored.answered.seconds
    }
    return _write_rejects(context, config, rejects, len(asked)) | {"prompts": len(candidates), "candidates": count, **rates}


def make_pairs(context: StageContext, config: RunConfig, seed: int, settings: Settings) -> Metrics:
    """The student's own beams on B, scored by every teacher, as preference pairs with the student's reference values."""
    prompts = dict(list(_prompts(context).items())[: settings["prompts"]])
    student = student_pool(context.inputs["student"].folder, config)
    pools = [teacher_pool(context, config, t.name, f"teacher:{t.name}") for t in config.teachers if t.kind == "model"]
    progress = Progress(context.board, context.name, (2 + len(pools)) * len(prompts))
    own = answers_of(student, get_task(config.task.name), prompts, context.parts, settings, progress)
    texts = dict(zip(own.answers["id"].to_pylist(), own.answers["texts"].to_pylist(), strict=True))
    scores = cross_score(
        {i: prompts[i] for i in prompts if i in texts}, texts, [*pools, student], known={},
        batch_size=settings["batch_size"], folder=context.parts, progress=progress,
    )  # fmt: skip
    rejects = _reject_rows(student.name, own.rejected)
    for name, scored in scores.items():
        rejects += _reject_rows(name, scored.answered.rejected)
    refused = {row["id"] for row in rejects}
    ids = [i for i in prompts if i not in refused]
    candidates = {}
    for i in ids:
        scored_by = [scores[pool.name].of(i) for pool in pools]
        candidates[i] = [
            {
                "text": text,
                "reference": sum(reference["words"]),
                "words": [rows[index]["words"] for rows in scored_by],
                "tokens": [rows[index]["tokens"] for rows in scored_by],
            }
            for index, (text, reference) in enumerate(zip(texts[i], scores[student.name].of(i), strict=True))
        ]
    weights = [settings["weights"][pool.name] for pool in pools]
    pairs = preference_pairs(ids, prompts, candidates, weights, settings["score"])
    write_jsonl(context.out / "pairs.jsonl", pairs)
    return _write_rejects(context, config, rejects, len(prompts)) | {"pairs": len(pairs), "without_pair": len(ids) - len(pairs)}


def known_scores(context: StageContext, teachers: list[str]) -> Mapping[str, Known]:
    """What these very teachers scored on the same prompts for tables finished before: by teacher, by id and text.

    So one more teacher, or one more beam, costs the others only the texts that it adds.
    """
    known: dict[str, dict[tuple[int, str], Row]] = {name: {} for name in teachers}
    for folder in sorted(context.out.parent.glob("[!.]*")):
        made_from = {} if damage(folder) else json.loads((folder / MANIFEST).read_text())["inputs"]
        if made_from.get("split") != context.inputs["split"].manifest["key"]:
            continue
        same = [name for name in teachers if made_from.get(role := f"teacher:{name}") == context.inputs[role].manifest["key"]]
        rows, names = read_table(folder / LABELS) if same else ([], [])
        for place, name in [(names.index(name), name) for name in same]:
            known[name] |= {(r["id"], r["text"]): {"words": r["words"][place], "tokens": r["tokens"][place]} for r in rows}
    return known


def teacher_pool(context: StageContext, config: RunConfig, name: str, role: str) -> Pool:
    """The actors of the teacher trained by the input `role`."""
    teacher = next(t for t in config.teachers if t.name == name)
    return Pool(
        name, str(context.inputs[role].folder / "model"), teacher.replicas, teacher.num_cpus, teacher.num_gpus,
        teacher.resources or {}, teacher.label_selector or {},
    )  # fmt: skip


def student_pool(folder: Path, config: RunConfig) -> Pool:
    """A pool for the model trained in `folder`, on the resources of the student."""
    student = config.student
    return Pool(
        "student", str(folder / "model"), student.replicas, student.num_cpus, student.num_gpus,
        student.resources or {}, student.label_selector or {},
    )  # fmt: skip


def _prompts(context: StageContext) -> dict[int, str]:
    role, part = ("validation", "validation") if "validation" in context.inputs else ("split", "student")
    return {example["id"]: example["prompt"] for example in context.read_examples(role, part)}


def _reject_rows(teacher: str, rejected: Mapping[int, str]) -> list[Row]:
    return [{"id": i, "teacher": teacher, "reason": reason} for i, reason in rejected.items()]


def _write_rejects(context: StageContext, config: RunConfig, rejects: list[Row], of: int) -> Metrics:
    """Write what cannot be labelled, and why. Raises StageFailed when that is more than the config allows."""
    write_table(context.out / REJECTED, rejects, REJECTS)
    count = len({row["id"] for row in rejects})
    allowed = config.labeling.max_rejected_fraction
    if count > allowed * of:
        first = rejects[0]
        raise StageFailed(
            f"{count} of {of} prompts cannot be labelled, more than labeling.max_rejected_fraction {allowed:g} allows "
            f"(id {first['id']}{', teacher ' + first['teacher'] if first['teacher'] else ''}: {first['reason']}); "
            f"raise it, or mend {'those prompts' if first['teacher'] else 'the label files'}"
        )
    return {"rejected": count}
