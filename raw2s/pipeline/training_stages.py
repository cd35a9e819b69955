"""The stages that train: teachers and ceiling on ground truth, students on weak labels, then on preference pairs."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, cast

from raw2s.config import TrainingConfig
from raw2s.errors import StageFailed
from raw2s.labels.forms import FORMS
from raw2s.labels.rows import RowKind, TrainingRow
from raw2s.labels.targets import Labeled
from raw2s.methods import LossSection, MethodSection, loss_of, method_of
from raw2s.methods.cross_entropy import CrossEntropySection
from raw2s.methods.learned import LearnedWeights
from raw2s.methods.method import Weights
from raw2s.pipeline.combining_stages import Combine
from raw2s.pipeline.data_stages import Examples
from raw2s.pipeline.fitting_stages import FitOnDevel
from raw2s.pipeline.jsonl import read_jsonl, write_jsonl
from raw2s.pipeline.labeling_stages import Label
from raw2s.pipeline.model import Model
from raw2s.pipeline.pair_stages import Pairs
from raw2s.pipeline.resources import places
from raw2s.pipeline.stage import Metrics, Work
from raw2s.tasks import Example
from raw2s.training.job import Job, Judge


@dataclass(frozen=True, kw_only=True)
class Judging:
    """What a score depends on beside task and training."""

    metric: str
    """The task's; another metric is another choice of epochs."""
    max_new_tokens: int | None
    """Longest answer; None for classes."""


@dataclass(frozen=True, kw_only=True)
class Trained(Model):
    """What the stages share that train a model."""

    version: ClassVar[int] = 2
    validation: Examples
    training: TrainingConfig
    judging: Judging | None
    """Where the score judges epochs."""
    seed: int

    def source(self, folder: Path) -> str:
        return str(folder / "model")

    @staticmethod
    def history(folder: Path) -> list[dict[str, float]]:
        """The points of the training curve."""
        return read_jsonl(folder / "history.jsonl")

    def fit(
        self,
        work: Work,
        rows: list[TrainingRow],
        *,
        pretrained: str,
        loss: LossSection,
        row_kind: RowKind | None = None,
        learned: LearnedWeights | None = None,
    ) -> Metrics:
        """Train on the rows; leaves model, training curve and the rows, which are the evidence of what was learned."""
        from raw2s.training.fit import fit  # imports Ray, which planning and a cached run do not need  # noqa: PLC0415

        form = FORMS[self.task.form]
        truth = self.validation.read(work.folder(self.validation), "validation")
        train_file, validation_file = work.out / "train.jsonl", work.out / "validation.jsonl"
        write_jsonl(train_file, rows)
        write_jsonl(validation_file, [form.learned(example, self.task) for example in truth])
        job = Job(
            name=self.name,
            model=pretrained,
            task=self.task.name,
            form=self.task.form,
            classes=self.task.classes,
            rows=row_kind or form.row_kind,
            train_file=str(train_file),
            validation_file=str(validation_file),
            training=self.training,
            loss=loss,
            seed=self.seed,
            chat=self.task.chat,
            learned=learned,
            judge=self._judge(truth),
        )
        metrics = fit(job, work.out, work.parts, board=work.board, warn=work.warn, places=places, callbacks=work.callbacks)
        validation_file.unlink()  # it is the split's
        return metrics

    def _judge(self, truth: list[Example]) -> Judge | None:
        """On all validation examples of classes, and on a prefix of one fixed shuffle of texts, the same for every seed."""
        if self.judging is None:
            return None
        if self.task.form == "text":
            truth = random.Random(0).sample(truth, len(truth))[: self.training.judged_examples]
        return Judge(scoring=self.task.scoring, examples=truth, max_new_tokens=self.judging.max_new_tokens)


@dataclass(frozen=True, kw_only=True)
class TrainOnGroundTruth(Trained):
    """A teacher on A, or the ceiling on B."""

    kind: ClassVar[str] = "train"
    split: Examples
    part: Literal["teacher", "student"]
    pretrained: str
    fingerprint: str

    def run(self, work: Work) -> Metrics:
        examples = self.split.read(work.folder(self.split), self.part)
        rows = [FORMS[self.task.form].learned(example, self.task) for example in examples]
        return self.fit(work, rows, pretrained=self.pretrained, loss=CrossEntropySection())


@dataclass(frozen=True, kw_only=True)
class TrainStudent(Trained):
    """The student on B's weak labels by one method."""

    kind: ClassVar[str] = "student"
    split: Examples
    labels: Label | Combine
    fitted: FitOnDevel | None
    method: MethodSection
    weights: Weights
    pretrained: str
    fingerprint: str

    def run(self, work: Work) -> Metrics:
        labeled = self._labeled(work)
        method = method_of(self.method)
        make_rows = method.from_text if self.task.form == "text" else method.from_classes
        if make_rows is None:
            raise StageFailed(f"method {self.method.method} makes nothing of {self.task.form}; choose another")
        rows = make_rows(labeled, self.method)
        items = len({row["id"] for row in labeled.table})
        if not rows:
            raise StageFailed(
                f"no teacher of weight above zero has labeled any of the {items} items; give another teacher weight"
            )
        without = {"without_label": items - len(rows)} if len(rows) < items else {}
        learned = None if method.learned is None else method.learned(self.method, labeled)
        return without | self.fit(work, rows, pretrained=self.pretrained, loss=self.method.loss, learned=learned)

    def _labeled(self, work: Work) -> Labeled:
        table, names = self.labels.read(work.folder(self.labels))
        fitted = None if self.fitted is None else self.fitted.read(work.folder(self.fitted))
        weights: Mapping[str, float]
        if self.weights == "devel":
            assert fitted is not None, "the plan gives a fit where weights are fitted"
            weights = fitted.weights
        else:
            weights = cast("dict[str, float]", self.weights)
        examples = self.split.read(work.folder(self.split), "student")
        return Labeled(
            prompts={example["id"]: example["prompt"] for example in examples},
            table=table,
            weights=[weights.get(name, 0.0) for name in names],
            teachers=names,
            temperatures=None if fitted is None else [fitted.temperatures.get(name, 1.0) for name in names],
            merge=loss_of(self.method.loss).linear(self.method.loss),
        )


@dataclass(frozen=True, kw_only=True)
class TrainPreference(Trained):
    """Conservative DPO from the fine-tuned student (Eq. 12)."""

    kind: ClassVar[str] = "cdpo"
    student: TrainStudent
    pairs: Pairs
    loss: LossSection

    def run(self, work: Work) -> Metrics:
        rows = self.pairs.read(work.folder(self.pairs))
        return self.fit(work, rows, pretrained=self.student.source(work.folder(self.student)), loss=self.loss, row_kind="pair")
