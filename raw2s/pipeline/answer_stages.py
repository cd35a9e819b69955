"""The stages that leave one teacher's answers: a model's own, or the labels of a teacher without one."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raw2s.config import Decoding, Tolerance
from raw2s.errors import StageFailed
from raw2s.labels.forms import FORMS
from raw2s.labels.label_files import Annotation
from raw2s.labels.table import (
    REJECTS,
    VOTES,
    in_order,
    write_table,
)
from raw2s.pipeline.data_stages import Examples
from raw2s.pipeline.model import Model
from raw2s.pipeline.stage import Metrics, Stage, Work
from raw2s.section import Actors
from raw2s.storage import Uri
from raw2s.storage.files import copy_here, filesystem
from raw2s.tasks import Task
from raw2s.teachers import Asked, TeacherSection, teacher_kind

ANSWERS, REJECTED = "answers.parquet", "rejects.parquet"


@dataclass(frozen=True, kw_only=True)
class Labeler:
    """A model that labels, by its name, the number format of its weights, and its actors."""

    name: str
    model: Model
    precision: Literal["fp32", "bf16"]
    actors: Actors

    def pool(self, work: Work) -> Any:
        """For the passes of `raw2s.labeling`."""
        from raw2s.labeling.units import Pool  # imports Ray  # noqa: PLC0415

        source = self.model.source(work.folder(self.model))
        return Pool(
            name=self.name,
            model=source,
            actors=self.actors,
            precision=self.precision,
            chat=self.model.task.chat,
            by_name=self.model.scores_classes,
        )

    def asked(self, work: Work, prompts: Mapping[int, str]) -> dict[int, str]:
        """The prompts as its model is asked them."""
        return self.model.asked(work.folder(self.model), prompts)


@dataclass(frozen=True, kw_only=True)
class Convert(Stage):
    """A teacher as CTranslate2 reads it, made where the teacher's actors run."""

    kind: ClassVar[str] = "converted"
    labeler: Labeler

    def run(self, work: Work) -> Metrics:
        import ray  # noqa: PLC0415

        from raw2s.labeling.actors import convert_model  # noqa: PLC0415

        made = work.parts / "model" if isinstance(work.parts, Uri) else self.model(work.out)  # which no other node sees
        actors = self.labeler.actors
        task = ray.remote(convert_model).options(
            num_cpus=actors.num_cpus,
            resources=actors.resources or None,
            label_selector=actors.label_selector or None,
            max_retries=0,
        )
        try:
            ray.get(task.remote(self.labeler.model.source(work.folder(self.labeler.model)), made))
        except ray.exceptions.RayTaskError as error:
            reason = " ".join(str(error.cause).split())
            raise StageFailed(f"{reason}; set backend: torch for teacher {self.labeler.name}") from error
        if isinstance(made, Uri):
            copy_here(filesystem(made), self.model(work.out))
        return {}

    @staticmethod
    def model(folder: Path) -> Path:
        return folder / "model"


class Answered(Stage):
    """A stage that leaves one teacher's answers, in the order of the examples, and what it could not answer."""

    def read(self, folder: Path) -> pa.Table:
        """The answers: the columns of the form's schema, without `reason`."""
        return pq.read_table(folder / ANSWERS)

    def rejected(self, folder: Path) -> list[dict[str, Any]]:
        """What could not be answered, with the reason."""
        return list(pq.read_table(folder / REJECTED).to_pylist())


@dataclass(frozen=True, kw_only=True)
class Answers(Answered):
    """A model's top beams, or class logits, for every prompt of B or of the validation examples."""

    kind: ClassVar[str] = "answers"
    examples: Examples
    part: Literal["student", "validation"]
    labeler: Labeler
    converted: Convert | None
    task: Task
    decoding: Decoding
    tolerance: Tolerance

    def run(self, work: Work) -> Metrics:
        from raw2s.labeling import answers  # imports Ray  # noqa: PLC0415
        from raw2s.labeling.units import PromptProgress  # noqa: PLC0415

        prompts = self.examples.prompts(work.folder(self.examples), self.part)
        pool = self.labeler.pool(work)
        if self.converted is not None:
            pool = replace(pool, converted=self.converted.model(work.folder(self.converted)))
        answered = answers.answers_of(
            pool,
            self.task,
            self.labeler.asked(work, prompts),
            decoding=self.decoding,
            folder=work.parts / "answers",
            progress=PromptProgress(work.board, self.name, len(prompts)),
        )
        pq.write_table(in_order(answered.answers, prompts), work.out / ANSWERS)
        rejected = write_rejects(work.out, reject_rows(self.labeler.name, answered.rejected), len(prompts), self.tolerance)
        return {"prompts": len(answered.answers), **rejected, "prompts_per_second": answered.prompts_per_second}


@dataclass(frozen=True, kw_only=True)
class Given(Answered):
    """What a teacher without a model says of B, its annotators' votes, and how both compare with B's ground truth if there is one."""

    kind: ClassVar[str] = "labels"
    split: Examples
    task: Task
    teacher: TeacherSection
    fingerprint: str

    VOTES: ClassVar[str] = "votes.parquet"
    COUNTS: ClassVar[str] = "counts.npy"

    def run(self, work: Work) -> Metrics:
        kind, form = teacher_kind(self.teacher), FORMS[self.task.form]
        examples = {example["id"]: example for example in self.split.read(work.folder(self.split), "student")}
        try:
            if kind.fingerprint(self.teacher) != self.fingerprint:
                raise ValueError(f"teacher {self.teacher.name} has changed since the run began; run again")
            asked = Asked(prompts={i: example["prompt"] for i, example in examples.items()}, task=self.task)
            annotations = kind.annotate(self.teacher, asked) if kind.annotate else []
        except ValueError as error:
            raise StageFailed(str(error)) from error
        own = [annotation for annotation in annotations if annotation.id in examples]
        answers = form.from_annotations(own, examples)
        write_table(work.out / ANSWERS, answers, form.schema)
        write_table(work.out / REJECTED, [], REJECTS)
        write_table(work.out / self.VOTES, _votes(self.teacher.name, own) if form.name == "classes" else [], VOTES)
        said = {row["id"]: self.task.parse(form.said(row[form.column], self.task.classes)) for row in answers}
        unparsable = {"unparsable": sum(answer is None for answer in said.values())} if form.name == "text" else {}
        return {
            "items": len(said),
            "missing": len(examples) - len(said),
            "ids_not_in_b": len({annotation.id for annotation in annotations} - examples.keys()),
            "annotators": len({annotation.annotator for annotation in own}),
            **unparsable,
            **self._score(work.out, said, {i: example["gold"] for i, example in examples.items()}),
        }

    def _score(self, out: Path, said: Mapping[int, Any], gold: Mapping[int, Any]) -> dict[str, float]:
        known = [i for i in said if gold[i] is not None]
        metric = self.task.metric
        given = [self.task.nothing if said[i] is None else said[i] for i in known]
        counts = metric.counts([gold[i] for i in known], given)
        np.save(out / self.COUNTS, counts)
        return {f"{metric.name}_on_b": float(metric.score(counts.mean(axis=0)))} if known else {}

    def counts(self, folder: Path) -> NDArray[np.float64]:
        """The metric's counts on those examples of B that have a label and ground truth: (items, C)."""
        return np.load(folder / self.COUNTS)

    def votes(self, folder: Path) -> list[tuple[int, str, int]]:
        """(id, annotator, class) of every annotator."""
        return [(row["id"], row["worker"], row["label"]) for row in pq.read_table(folder / self.VOTES).to_pylist()]


def reject_rows(teacher: str, rejected: Mapping[int, str]) -> list[dict[str, Any]]:
    """Rows of `REJECTS`."""
    return [{"id": i, "teacher": teacher, "reason": reason} for i, reason in rejected.items()]


def write_rejects(out: Path, rejects: list[dict[str, Any]], of: int, tolerance: Tolerance) -> Metrics:
    """Write what cannot be labeled, and why. Raises StageFailed when that is more than the config allows."""
    write_table(out / REJECTED, rejects, REJECTS)
    count = len({row["id"] for row in rejects})
    allowed = tolerance.max_rejected_fraction
    if count > allowed * of:
        first = rejects[0]
        raise StageFailed(
            f"{count} of {of} prompts cannot be labeled, more than labeling.max_rejected_fraction {allowed:g} allows "
            f"(id {first['id']}{', teacher ' + first['teacher'] if first['teacher'] else ''}: {first['reason']}); "
            f"raise it, or mend {'those prompts' if first['teacher'] else 'the label files'}"
        )
    return {"rejected": count}


def _votes(teacher: str, annotations: list[Annotation]) -> list[dict[str, Any]]:
    return [
        {"id": a.id, "worker": f"{teacher}/{a.annotator}".rstrip("/"), "label": int(np.argmax(a.probabilities))}
        for a in annotations
    ]
