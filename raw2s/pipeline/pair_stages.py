"""The stage that makes preference pairs of the student's own beams, as the teachers score them (section 4.3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from raw2s.config import Decoding, Tolerance
from raw2s.labels.rows import TrainingRow
from raw2s.labels.targets import OwnCandidate, Score, preference_pairs
from raw2s.pipeline.answer_stages import Labeler, reject_rows, write_rejects
from raw2s.pipeline.data_stages import Examples
from raw2s.pipeline.jsonl import read_jsonl, write_jsonl
from raw2s.pipeline.labeling_stages import cross_scores
from raw2s.pipeline.stage import Metrics, Stage, Work
from raw2s.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Pairs(Stage):
    """The student's own beams on B, scored by every teacher that is a model, as pairs with the student's reference values."""

    kind: ClassVar[str] = "pairs"
    version: ClassVar[int] = 2
    split: Examples
    student: Labeler
    scorers: Mapping[str, Labeler]
    weights: Mapping[str, float]
    score: Score
    prompts: int | None
    """How many prompts of B, the first ones; None takes all."""
    task: Task
    decoding: Decoding
    tolerance: Tolerance

    PAIRS: ClassVar[str] = "pairs.jsonl"

    def read(self, folder: Path) -> list[TrainingRow]:
        """The pairs, one training row each."""
        return read_jsonl(folder / self.PAIRS)

    def run(self, work: Work) -> Metrics:
        from raw2s.labeling import answers  # imports Ray  # noqa: PLC0415
        from raw2s.labeling.units import PromptProgress  # noqa: PLC0415

        prompts = dict(list(self.split.prompts(work.folder(self.split), "student").items())[: self.prompts])
        own = answers.answers_of(
            self.student.pool(work),
            self.task,
            prompts,
            decoding=self.decoding,
            folder=work.parts / "answers",
            progress=PromptProgress(work.board, self.name, (2 + len(self.scorers)) * len(prompts)),
        )
        texts = dict(zip(own.answers["id"].to_pylist(), own.answers["texts"].to_pylist(), strict=True))
        answered = {i: prompts[i] for i in prompts if i in texts}
        scorers = [*self.scorers.values(), self.student]
        scores = cross_scores(self.name, work, scorers, answered, texts, batch_size=self.decoding.batch_size, known={})
        rejects = reject_rows(self.student.name, own.rejected)
        for name, scored in scores.items():
            rejects += reject_rows(name, scored.answered.rejected)
        refused = {row["id"] for row in rejects}
        candidates = {i: self._candidates(i, texts[i], scores) for i in prompts if i not in refused}
        pairs = preference_pairs(prompts, candidates, [self.weights[name] for name in self.scorers], self.score)
        write_jsonl(work.out / self.PAIRS, pairs)
        rejected = write_rejects(work.out, rejects, len(prompts), self.tolerance)
        return rejected | {"pairs": len(pairs), "without_pair": len(candidates) - len(pairs)}

    def _candidates(self, i: int, texts: list[str], scores: Mapping[str, Any]) -> list[OwnCandidate]:
        by_teacher = [scores[name].of(i) for name in self.scorers]
        references = scores[self.student.name].of(i)
        return [
            OwnCandidate(
                text=text,
                reference=sum(reference["words"]),
                words=[rows[index]["words"] for rows in by_teacher],
                tokens=[rows[index]["tokens"] for rows in by_teacher],
            )
            for index, (text, reference) in enumerate(zip(texts, references, strict=True))
        ]
