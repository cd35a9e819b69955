"""The stages of a run: what each reads, what decides its content, and what it does.

    split ─┬─ teacher/* ─┬─ test/*
           │             └─ beams/* or classes/* ──┬─ label ── student/* ─┬─ test/*
           ├─ labels/* ────────────────────────────┘                      └─ pairs/* ── cdpo/* ── test/*
           └─ ceiling ── test/*

The splits of devel and test are stages of their own, so that testing on more utterances trains nothing again. `labels/*` reads a
teacher that is a file. Between `label` and a student of classes may stand `combine/*` (crowd methods), and beside it `fit`
(temperatures and weights), made from the teachers' answers on devel (`devel/*`).

`plan_stages` lays them out for one seed; nothing runs until `raw2s.pipeline.execute`.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from raw2s.config import RunConfig, StudentConfig, TrainingConfig
from raw2s.labeling.label_files import file_fingerprint
from raw2s.models.load import model_fingerprint
from raw2s.pipeline.artifacts import Artifact, artifact_key

PLACEMENT = {
    "workers", "cpus_per_worker", "gpus_per_worker", "offload", "activation_checkpointing", "checkpoint_every", "max_failures",
    "num_cpus", "num_gpus", "replicas", "resources", "label_selector",
}  # fmt: skip
"""Settings of where and how safely work runs: they change no more of what comes out than its rounding, so they are in no key."""

Metrics = dict[str, Any]
Settings = dict[str, Any]


@dataclass
class StageContext:
    """What a stage is given: its inputs' artifacts, an empty folder to fill, one for what it finishes on the way, the board."""

    name: str
    inputs: dict[str, Artifact]
    out: Path
    parts: Path
    """Outlives a stage that is cut off: the next attempt finds what this one finished."""
    board: Any
    callbacks: Sequence[Any] = ()
    """Ray Train callbacks of a training stage; a sweep reports to Tune through one."""

    def read_examples(self, role: str, part: str) -> list[dict[str, Any]]:
        """`teacher` (A) or `student` (B) of the input `split`; `validation` and `test` of the inputs of that name."""
        return read_jsonl(self.inputs[role].folder / f"{part}.jsonl")


@dataclass(frozen=True)
class Stage:
    """`settings` and the inputs' keys determine the content; `run` fills `context.out` and returns the metrics."""

    kind: str
    name: str
    settings: dict[str, Any]
    inputs: dict[str, "Stage"]
    run: Callable[[StageContext], dict[str, Any]] = field(compare=False)

    @cached_property
    def key(self) -> str:
        return artifact_key(self.kind, self.settings, {role: stage.key for role, stage in self.inputs.items()})


@dataclass(frozen=True)
class SeedPlan:
    """The stages of one seed, by what the results call them."""

    seed: int
    testset: Stage
    label: Stage
    teachers: dict[str, Stage]
    """The teachers that are models."""
    label_files: dict[str, Stage]
    """Those that are files."""
    ceiling: Stage
    students: list[tuple[StudentConfig, str, Stage]]
    """(config, method as tables name it, the stage that makes the model)."""
    tests: dict[str, Stage]
    """By the name of the stage whose model is tested."""

    def in_order(self) -> list[Stage]:
        """Every stage once, inputs first."""
        return inputs_first([*self.teachers.values(), self.label, *self.tests.values()])


def inputs_first(stages: Iterable[Stage]) -> list[Stage]:
    """These stages and all that they need, each once, after what it needs."""
    ordered: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        for needed in stage.inputs.values():
            visit(needed)
        ordered.setdefault(stage.name, stage)

    for stage in stages:
        visit(stage)
    return list(ordered.values())


def plan_stages(config: RunConfig, seed: int) -> SeedPlan:
    """All stages of `config` for one seed."""
    suffix = f"@{seed}" if len(config.seeds) > 1 else ""

    def stage(kind: str, name: str, work: str, inputs: dict[str, Stage], /, **settings: Any) -> Stage:
        def run(context: StageContext) -> Metrics:
            module, _, function = work.rpartition(".")  # imports Ray, which planning and a cached run do not need
            return getattr(import_module(f"raw2s.pipeline.{module}"), function)(context, config, seed, settings)

        return Stage(kind, name + (suffix if "seed" in settings or inputs else ""), _plain(settings), inputs, run)

    task = {"task": config.task.name}
    source = {**task, "prompt": config.task.prompt}
    split = stage(
        "split", "split", "work.split", {},
        **source, draw_from=config.task.draw_from, n_teacher=config.task.n_teacher, n_student=config.task.n_student, seed=seed,
    )  # fmt: skip
    validation = stage("split", "validation", "work.held_out", {}, **source, part="validation", size=config.task.n_validation)
    test = stage("split", "testset", "work.held_out", {}, **source, part="test", size=config.task.n_test)

    def trained(name: str, part: str, training: TrainingConfig, pretrained: str) -> Stage:
        return stage(
            "train", name, "work.train_on_ground_truth", {"split": split, "validation": validation},
            **task, part=part, training=training, seed=seed, model=pretrained, fingerprint=model_fingerprint(pretrained),
        )  # fmt: skip

    def tested(model: Stage) -> Stage:
        role = model.name.removesuffix(suffix)
        inputs = {"test": test, "model": model}
        return stage(
            "test", f"test/{role}", "work.test", inputs,
            **task, beams=config.evaluation.beams, max_new_tokens=config.labeling.max_new_tokens, batch_size=config.evaluation.batch_size,
        )  # fmt: skip

    teachers, label_files = {}, {}
    for teacher in config.teachers:
        if teacher.kind == "labels":
            assert teacher.file is not None
            label_files[teacher.name] = stage(
                "labels", f"labels/{teacher.name}", "combining.read_labels", {"split": split},
                **task, teacher=teacher.name, fingerprint=file_fingerprint(teacher.file),
            )  # fmt: skip
            continue
        rate = teacher.learning_rate or config.teacher_training.learning_rate
        training = config.teacher_training.model_copy(update={"learning_rate": rate})
        teachers[teacher.name] = trained(f"teacher/{teacher.name}", "teacher", training, teacher.model)
    ceiling = trained("ceiling", "student", config.ceiling_training or config.student_training, config.student.model)
    roles = {f"teacher:{name}": made for name, made in teachers.items()}
    is_text = config.task.name == "slurp_slots"
    batch_size = config.labeling.batch_size
    backend = {teacher.name: teacher.backend for teacher in config.teachers}

    def answered(name: str) -> Stage:
        inputs = {"split": split, "teacher": teachers[name]}
        if is_text:
            if backend[name] == "ctranslate2":
                inputs["converted"] = stage(
                    "converted", f"convert/{name}", "labelling.convert", {"teacher": teachers[name]}, teacher=name
                )
            decoding = {"beams": config.labeling.beams, "max_new_tokens": config.labeling.max_new_tokens}
            return stage(
                "beams", f"beams/{name}", "labelling.answer", inputs, **task, teacher=name, batch_size=batch_size, **decoding
            )
        return stage("classes", f"classes/{name}", "labelling.answer", inputs, **task, teacher=name, batch_size=batch_size)

    answers = {f"answers:{t.name}": label_files.get(t.name) or answered(t.name) for t in config.teachers}
    scorers, scoring = (roles, {"batch_size": batch_size}) if is_text else ({}, {})
    label = stage("label", "label", "labelling.label", {"split": split, **answers, **scorers}, **task, **scoring)

    def fitted() -> Stage:
        devel = {
            f"answers:{name}": stage(
                "classes", f"devel/{name}", "labelling.answer", {"validation": validation, "teacher": model},
                **task, teacher=name, batch_size=batch_size,
            )
            for name, model in teachers.items()
        }  # fmt: skip
        inputs = {"validation": validation, **devel}
        return stage("fit", "fit", "combining.fit_on_devel", inputs, **task, calibrate=config.labeling.calibrate)

    def combined(method: str) -> Stage:
        files = {role: made for role, made in answers.items() if made in label_files.values()}
        inputs = {"split": split, "label": label, **files}
        return stage("combine", f"combine/{method}", "combining.combine", inputs, **task, method=method, seed=seed)

    students: list[tuple[StudentConfig, str, Stage]] = []
    for index, student in enumerate(config.students):
        name = f"student/{index}-{student.label.replace(':', '-')}"
        weights = student_weights(config, student)
        labelled = {"label": combined(student.method) if student.is_crowd else label}
        if not student.is_crowd and (weights == "devel" or config.labeling.calibrate):
            labelled["fit"] = fitted()
        made = stage(
            "student", name, "work.train_student", {"split": split, "validation": validation, **labelled},
            **task, student=student.model_copy(update={"cdpo": False}), weights=weights,
            score=config.labeling.score if student.method == "joint" else None, training=config.student_training,
            seed=seed, model=config.student.model, fingerprint=model_fingerprint(config.student.model),
        )  # fmt: skip
        made = next((stage for _, _, stage in students if stage.key == made.key), made)  # the same student, with cDPO
        students.append((student, student.label, made))
        if student.cdpo:
            pairs = stage(
                "pairs", f"pairs/{index}", "labelling.make_pairs", {"split": split, "student": made, **roles},
                **task, beams=config.preference.beams, prompts=config.preference.prompts,
                weights=scoring_weights(config, "preference"), score=config.labeling.score,
                max_new_tokens=config.labeling.max_new_tokens, batch_size=batch_size,
            )  # fmt: skip
            preferred = stage(
                "cdpo", f"cdpo/{index}", "work.train_preference", {"validation": validation, "student": made, "pairs": pairs},
                **task, beta=config.preference.beta, label_smoothing=config.preference.label_smoothing,
                training=config.preference.training, seed=seed,
            )  # fmt: skip
            students.append((student, f"{student.label}+cdpo", preferred))
    models = [*teachers.values(), ceiling, *(made for _, _, made in students)]
    return SeedPlan(seed, test, label, teachers, label_files, ceiling, students, {model.name: tested(model) for model in models})


def named_weights(config: RunConfig, use: Literal["loss", "joint", "preference"]) -> dict[str, float]:
    return dict(zip((t.name for t in config.teachers), config.teacher_weights(use), strict=True))


def scoring_weights(config: RunConfig, use: Literal["joint", "preference"]) -> dict[str, float]:
    """Of the teachers that score text, which label files do not; renormalised over them."""
    weights = named_weights(config, use)
    files = [t.name for t in config.teachers if t.kind == "labels"]
    scoring = {name: weight for name, weight in weights.items() if name not in files}
    return {name: weight / sum(scoring.values()) for name, weight in scoring.items()} if files else weights


def student_weights(config: RunConfig, student: StudentConfig) -> dict[str, float] | Literal["devel"]:
    """By teacher name, only the weights that the student's method reads: others must not change its key.

    A crowd method's labels come from one teacher, the method itself; `devel`: from the stage `fit`.
    """
    if student.is_crowd:
        return {student.method: 1.0}
    if student.method == "single":
        return {t.name: float(t.name == student.teacher) for t in config.teachers}
    if student.method == "joint":
        return scoring_weights(config, "joint") if config.task.name == "slurp_slots" else named_weights(config, "joint")
    return "devel" if config.weights.loss == "devel" else named_weights(config, "loss")


def _plain(value: Any) -> Any:
    """Config sections as plain data without placement, for the key and the manifest."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if k not in PLACEMENT}
    return value


def read_jsonl(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def write_jsonl(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
