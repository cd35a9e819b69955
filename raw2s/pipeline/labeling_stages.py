"""The stage that labels: all teachers' answers as the weak-label table, cross-scored where they are texts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from raw2s.config import Tolerance
from raw2s.labels.forms import FORMS
from raw2s.labels.table import CLASSIFICATION, GENERATION, ScoreRow, generation_rows, merged_texts, read_table, write_table
from raw2s.pipeline.answer_stages import Answered, Labeler, reject_rows, write_rejects
from raw2s.pipeline.data_stages import Examples
from raw2s.pipeline.stage import Metrics, Stage, Work
from raw2s.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Label(Stage):
    """All teachers' labels of B as one raw table; for text after every teacher that is a model has scored every candidate.

    The order of the teachers orders the candidates, of which the smaller index wins a tie, so it is in the key.
    """

    kind: ClassVar[str] = "label"
    split: Examples
    answers: Mapping[str, Answered]
    """By teacher's name."""
    scorers: Mapping[str, Labeler]
    """Those that score the candidates; none where labels are classes."""
    task: Task
    batch_size: int
    tolerance: Tolerance

    TABLE: ClassVar[str] = "labels.parquet"

    def read(self, folder: Path) -> tuple[list[Any], list[str]]:
        """The rows (`CandidateRow` or `ClassRow`), and the teachers' names in the order of the rows' lists."""
        return read_table(folder / self.TABLE)

    def run(self, work: Work) -> Metrics:
        form = FORMS[self.task.form]
        asked = self.split.prompts(work.folder(self.split), "student")
        tables = [answered.read(work.folder(answered)) for answered in self.answers.values()]
        rejects = [row for answered in self.answers.values() for row in answered.rejected(work.folder(answered))]
        refused = {row["id"] for row in rejects}
        prompts = {i: prompt for i, prompt in asked.items() if i not in refused}
        given = [dict(zip(table["id"].to_pylist(), table[form.column].to_pylist(), strict=True)) for table in tables]
        labeled: set[int] = set().union(*given)
        rejects += [{"id": i, "teacher": None, "reason": "no teacher has a label for it"} for i in prompts if i not in labeled]
        prompts = {i: prompt for i, prompt in prompts.items() if i in labeled}
        if not form.scored:
            logits = ({"id": i, "logits": [own.get(i) for own in given]} for i in prompts)
            write_table(work.out / self.TABLE, logits, CLASSIFICATION, list(self.answers))
            return write_rejects(work.out, rejects, len(asked), self.tolerance) | {"prompts": len(prompts)}
        metrics, more = self._write_scored(work, prompts, given)
        return write_rejects(work.out, rejects + more, len(asked), self.tolerance) | metrics

    def _write_scored(
        self, work: Work, prompts: Mapping[int, str], given: list[dict[int, list[str]]]
    ) -> tuple[Metrics, list[dict[str, Any]]]:
        """Candidates, cross-scored (Eq. 6), as the table; its metrics, and what some teacher could not score."""
        candidates = {i: merged_texts([own.get(i, []) for own in given]) for i in prompts}
        scores = cross_scores(
            self.name, work, self.scorers.values(), prompts, candidates, batch_size=self.batch_size, known=self._known(work)
        )
        rejects: list[dict[str, Any]] = []
        for name, scored in scores.items():
            rejects += reject_rows(name, scored.answered.rejected)
            candidates = {i: own for i, own in candidates.items() if i not in scored.answered.rejected}
        by_teacher = [scores[name].of if name in scores else None for name in self.answers]
        count = write_table(work.out / self.TABLE, generation_rows(candidates, given, by_teacher), GENERATION, list(self.answers))
        rates = {
            f"prompts_per_second/{name}": scored.answered.prompts_per_second
            for name, scored in scores.items()
            if scored.answered.seconds
        }
        return {"prompts": len(candidates), "candidates": count, **rates}, rejects

    def _known(self, work: Work) -> Mapping[str, Mapping[tuple[int, str], ScoreRow]]:
        """What these very teachers scored on the same prompts for tables finished before: by teacher, by id and text.

        So one more teacher, or one more beam, costs the others only the texts that it adds. The manifest names who lent.
        """
        known: dict[str, dict[tuple[int, str], ScoreRow]] = {name: {} for name in self.scorers}
        for artifact in work.earlier(self.kind):
            made_from = artifact.manifest["inputs"]
            if made_from.get("split") != self.split.key:
                continue
            before = dict(artifact.manifest["settings"]["scorers"])
            same = [
                name
                for name, scorer in self.scorers.items()
                if made_from.get(f"scorers/{name}/model") == scorer.model.key and before[name]["precision"] == scorer.precision
            ]
            rows, names = self.read(artifact.folder) if same else ([], [])
            for place, name in [(names.index(name), name) for name in same]:
                known[name] |= {(r["id"], r["text"]): ScoreRow(words=r["words"][place], tokens=r["tokens"][place]) for r in rows}
            if rows:
                work.lent.append(artifact.manifest["key"])
        return known


def cross_scores(
    stage: str,
    work: Work,
    scorers: Iterable[Labeler],
    prompts: Mapping[int, str],
    candidates: Mapping[int, list[str]],
    *,
    batch_size: int,
    known: Mapping[str, Mapping[tuple[int, str], ScoreRow]],
) -> dict[str, Any]:
    """`raw2s.labeling.cross_scores.Scores` by teacher's name: every scorer of every candidate, each on its own actors."""
    from raw2s.labeling import cross_scores as scoring  # imports Ray  # noqa: PLC0415
    from raw2s.labeling.units import PromptProgress  # noqa: PLC0415

    asked = [(labeler.pool(work), labeler.asked(work, prompts)) for labeler in scorers]
    progress = PromptProgress(work.board, stage, len(asked) * len(prompts))
    return scoring.cross_score(asked, candidates, known=known, batch_size=batch_size, folder=work.parts, progress=progress)
