"""The stage that tests a model: its answers to the test examples, and their score."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from raw2s.config import Decoding
from raw2s.errors import StageFailed
from raw2s.labels.forms import FORMS
from raw2s.labels.table import in_order
from raw2s.pipeline.answer_stages import Labeler
from raw2s.pipeline.data_stages import Examples
from raw2s.pipeline.jsonl import read_jsonl, write_jsonl
from raw2s.pipeline.stage import Metrics, Stage, Work
from raw2s.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Test(Stage):
    """A model's answers to the test examples and its score, on the model's own actors."""

    kind: ClassVar[str] = "test"
    examples: Examples
    labeler: Labeler
    task: Task
    metric: str
    """The task's; another metric is another test."""
    decoding: Decoding

    COUNTS: ClassVar[str] = "counts.npy"
    PREDICTIONS: ClassVar[str] = "predictions.jsonl"

    def run(self, work: Work) -> Metrics:
        from raw2s.labeling import answers  # imports Ray  # noqa: PLC0415
        from raw2s.labeling.units import PromptProgress  # noqa: PLC0415

        examples = self.examples.read(work.folder(self.examples), "test")
        prompts = {example["id"]: example["prompt"] for example in examples}
        answered = answers.answers_of(
            self.labeler.pool(work),
            self.task,
            self.labeler.asked(work, prompts),
            decoding=self.decoding,
            folder=work.parts / "answers",
            progress=PromptProgress(work.board, self.name, len(prompts)),
        )
        if answered.rejected:  # left out, it would flatter the score
            i, reason = next(iter(answered.rejected.items()))
            raise StageFailed(f"{len(answered.rejected)} of {len(prompts)} test prompts cannot be answered (id {i}): {reason}")
        form = FORMS[self.task.form]
        column = in_order(answered.answers, prompts)[form.column].to_pylist()
        texts = [form.said(own, self.task.classes) for own in column]
        gold = [example["gold"] for example in examples]
        scored = self.task.scoring.score(gold, texts)
        np.save(work.out / self.COUNTS, scored.counts)
        write_jsonl(
            work.out / self.PREDICTIONS,
            [
                {"id": i, "output": text, "predicted": own, "gold": true}
                for i, text, own, true in zip(prompts, texts, scored.predicted, gold, strict=True)
            ],
        )
        metrics: Metrics = {self.task.metric.name: scored.score}
        if form.name == "text":
            metrics["empty"] = sum(a == self.task.nothing for a in scored.predicted) / len(prompts)
            metrics["unparsable"] = sum(a is None for a in scored.parsed) / len(prompts)
        return metrics

    def counts(self, folder: Path) -> NDArray[np.float64]:
        """The metric's counts: (examples, C)."""
        return np.load(folder / self.COUNTS)

    def predictions(self, folder: Path) -> list[dict[str, Any]]:
        """{"id", "output", "predicted", "gold"} of every test example, in order."""
        return read_jsonl(folder / self.PREDICTIONS)
