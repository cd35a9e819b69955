"""The stages that ask a student how certain it is: forward passes over the test examples, beside its test."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raw2s.config import Decoding
from raw2s.errors import StageFailed
from raw2s.labels.table import in_order
from raw2s.losses.doubt import DROPOUT_MEASURES, MEASURES
from raw2s.methods import LossSection
from raw2s.pipeline.answer_stages import Labeler
from raw2s.pipeline.data_stages import Examples
from raw2s.pipeline.stage import Metrics, Stage, Work
from raw2s.pipeline.testing_stages import Test
from raw2s.tasks import Task

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ClassLogits(Stage):
    """A classifier's logits for the test examples, and for the validation examples, on which a temperature is fitted."""

    kind: ClassVar[str] = "logits"
    testset: Examples
    validation: Examples
    labeler: Labeler
    task: Task
    decoding: Decoding

    TEST: ClassVar[str] = "test.npy"
    VALIDATION: ClassVar[str] = "validation.npy"

    def run(self, work: Work) -> Metrics:
        from raw2s.labeling import answers  # imports Ray  # noqa: PLC0415
        from raw2s.labeling.units import PromptProgress  # noqa: PLC0415

        test = self.testset.prompts(work.folder(self.testset), "test")
        validation = self.validation.prompts(work.folder(self.validation), "validation")
        prompts = dict(enumerate([*test.values(), *validation.values()]))  # one pass: ids of the two may be the same
        answered = answers.answers_of(
            self.labeler.pool(work),
            self.task,
            self.labeler.asked(work, prompts),
            decoding=self.decoding,
            folder=work.parts / "logits",
            progress=PromptProgress(work.board, self.name, len(prompts)),
        )
        _require_all(answered.rejected)
        logits_PK = np.array(in_order(answered.answers, prompts)["logits"].to_pylist(), dtype=np.float64)
        np.save(work.out / self.TEST, logits_PK[: len(test)])
        np.save(work.out / self.VALIDATION, logits_PK[len(test) :])
        return {"test": len(test), "validation": len(validation)}

    def logits(self, folder: Path) -> Values:
        """(U, K), in the order of the test examples."""
        return np.load(folder / self.TEST)

    def validation_logits(self, folder: Path) -> Values:
        """(validation examples, K), in their order."""
        return np.load(folder / self.VALIDATION)


@dataclass(frozen=True, kw_only=True)
class AnswerDoubts(Stage):
    """How certain a student was at every token of its answers to the test examples, teacher-forced over them."""

    kind: ClassVar[str] = "doubt"
    testset: Examples
    test: Test
    labeler: Labeler
    loss: LossSection | None
    """What it was trained with, where that says how its logits are read."""
    decoding: Decoding

    DOUBTS: ClassVar[str] = "doubts.parquet"

    def run(self, work: Work) -> Metrics:
        from raw2s.labeling import doubts  # imports Ray  # noqa: PLC0415

        return _ask_again(self, work, partial(doubts.doubts_of, loss=self.loss))

    def doubts(self, folder: Path) -> dict[str, list[list[float]]]:
        """By measure one list of tokens an answer, in the order of the test examples; without those that the student lacks."""
        table = pq.read_table(folder / self.DOUBTS, columns=list(MEASURES))
        return {name: table[name].to_pylist() for name in MEASURES if not table[name].null_count}


@dataclass(frozen=True, kw_only=True)
class DropoutDoubts(Stage):
    """How certain a student was of its answers to the test examples by several passes with dropout on."""

    kind: ClassVar[str] = "dropout"
    testset: Examples
    test: Test
    labeler: Labeler
    loss: LossSection | None
    """As `AnswerDoubts.loss`, of a classifier too."""
    decoding: Decoding
    passes: int

    DOUBTS: ClassVar[str] = "doubts.parquet"

    def run(self, work: Work) -> Metrics:
        from raw2s.labeling import dropout  # imports Ray  # noqa: PLC0415

        passes = dropout.Passes(count=self.passes, loss=self.loss, classes=self.test.task.classes)
        return _ask_again(self, work, partial(dropout.dropout_doubts_of, passes=passes))

    def doubts(self, folder: Path) -> dict[str, list[list[float]]]:
        """By measure one list of tokens an answer, of a class one value, in the order of the test examples."""
        table = pq.read_table(folder / self.DOUBTS, columns=list(DROPOUT_MEASURES))
        return {name: table[name].to_pylist() for name in DROPOUT_MEASURES}


def _ask_again(stage: AnswerDoubts | DropoutDoubts, work: Work, ask: Callable[..., Any]) -> Metrics:
    """Ask the student about its own answers to the test examples, and leave what it says in their order."""
    from raw2s.labeling.prompts import prompt_units  # noqa: PLC0415
    from raw2s.labeling.units import PromptProgress  # imports Ray  # noqa: PLC0415

    prompts = stage.testset.prompts(work.folder(stage.testset), "test")
    asked = stage.labeler.asked(work, prompts)
    answers = {row["id"]: [row["output"]] for row in stage.test.predictions(work.folder(stage.test))}
    answered = ask(
        stage.labeler.pool(work),
        prompt_units(list(asked), list(asked.values()), stage.decoding.batch_size, answers),
        folder=work.parts / "doubts",
        progress=PromptProgress(work.board, stage.name, len(prompts)),
    )
    _require_all(answered.rejected)
    pq.write_table(in_order(answered.answers, prompts), work.out / stage.DOUBTS)
    return {"prompts": len(prompts)}


def _require_all(rejected: dict[int, str]) -> None:
    if rejected:  # its test answered all of them
        raise StageFailed(f"{len(rejected)} examples cannot be asked again: {next(iter(rejected.values()))}")
