"""The stages that label: each teacher's answers, the weak-label table made of them, and the preference pairs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
    CLASSIFICATION,
    GENERATION,
    REJECTS,
    VOTES,
    ScoreRow,
    generation_rows,
    in_order,
    merged_texts,
    read_table,
    write_table,
)
from raw2s.pipeline.data_stages import Examples
from raw2s.pipeline.model import Model
from raw2s.pipeline.stage import Metrics, Stage, Work
from raw2s.section import Actors
from raw2s.tasks import Task
from raw2s.teachers import Asked, TeacherSection, teacher_kind

ANSWERS, REJECTED = "answers.parquet", "rejects.parquet"


@dataclass(frozen=True, kw_only=True)
class Labeller:
    """A model that labels, by its name, the number format of its weights, and its actors."""

    name: str
    model: Model
    precision: Literal["fp32", "bf16"]
    actors: Actors

    def pool(self, work: Work) -> Any:
        """For the passes of `raw2s.labeling`."""
        from raw2s.labeling.units import Pool  # imports Ray  # noqa: PLC0415

        source = self.model.source(work.folder(self.model))
        return Pool(name=self.name, model=source, actors=self.actors, precision=self.precision, chat=self.model.task.chat)

    def asked(self, work: Work, prompts: Mapping[int, str]) -> dict[int, str]:
        """The prompts as its model is asked them."""
        return self.model.asked(work.folder(self.model), prompts)


@dataclass(frozen=True, kw_only=True)
class Convert(Stage):
    """A teacher as CTranslate2 reads it, made where the teacher's actors run."""

    kind: ClassVar[str] = "converted"
    labeller: Labeller

    def run(self, work: Work) -> Metrics:
        import ray  # noqa: PLC0415

        from raw2s.labeling.actors import convert_model  # noqa: PLC0415

        actors = self.labeller.actors
        task = ray.remote(convert_model).options(
            num_cpus=actors.num_cpus,
            resources=actors.resources or None,
            label_selector=actors.label_selector or None,
            max_retries=0,
        )
        try:
            ray.get(task.remote(self.labeller.model.source(work.folder(self.labeller.model)), self.model(work.out)))
        except ray.exceptions.RayTaskError as error:
            reason = " ".join(str(error.cause).split())
            raise StageFailed(f"{reason}; set backend: torch for teacher {self.labeller.name}") from error
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
    labeller: Labeller
    converted: Convert | None
    task: Task
    decoding: Decoding
    tolerance: Tolerance

    def run(self, work: Work) -> Metrics:
        from raw2s.labeling import answers  # imports Ray  # noqa: PLC0415
        from raw2s.labeling.units import PromptProgress  # noqa: PLC0415

        prompts = self.examples.prompts(work.folder(self.examples), self.part)
        answered = answers.answers_of(
            self.labeller.pool(work),
            self.task,
            self.labeller.asked(work, prompts),
            decoding=self.decoding,
            folder=work.parts / "answers",
            progress=PromptProgress(work.board, self.name, len(prompts)),
            converted=None if self.converted is None else self.converted.model(work.folder(self.converted)),
            by_name=self.labeller.model.scores_classes,
        )
        pq.write_table(in_order(answered.answers, prompts), work.out / ANSWERS)
        rejected = write_rejects(work.out, reject_rows(self.labeller.name, answered.rejected), len(prompts), self.tolerance)
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
        said = {row["id"]: self.task.parse(form.said(row[form.column], self.task)) for row in answers}
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


@dataclass(frozen=True, kw_only=True)
class Label(Stage):
    """All teachers' labels of B as one raw table; for text after every teacher that is a model has scored every candidate.

    The order of the teachers orders the candidates, of which the smaller index wins a tie, so it is in the key.
    """

    kind: ClassVar[str] = "label"
    split: Examples
    answers: Mapping[str, Answered]
    """By teacher's name."""
    scorers: Mapping[str, Labeller]
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
        labelled: set[int] = set().union(*given)
        rejects += [{"id": i, "teacher": None, "reason": "no teacher has a label for it"} for i in prompts if i not in labelled]
        prompts = {i: prompt for i, prompt in prompts.items() if i in labelled}
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
    scorers: Iterable[Labeller],
    prompts: Mapping[int, str],
    candidates: Mapping[int, list[str]],
    *,
    batch_size: int,
    known: Mapping[str, Mapping[tuple[int, str], ScoreRow]],
) -> dict[str, Any]:
    """`raw2s.labeling.cross_scores.Scores` by teacher's name: every scorer of every candidate, each on its own actors."""
    from raw2s.labeling import cross_scores as scoring  # imports Ray  # noqa: PLC0415
    from raw2s.labeling.units import PromptProgress  # noqa: PLC0415

    asked = [(labeller.pool(work), labeller.asked(work, prompts)) for labeller in scorers]
    progress = PromptProgress(work.board, stage, len(asked) * len(prompts))
    return scoring.cross_score(asked, candidates, known=known, batch_size=batch_size, folder=work.parts, progress=progress)


def reject_rows(teacher: str, rejected: Mapping[int, str]) -> list[dict[str, Any]]:
    """Rows of `REJECTS`."""
    return [{"id": i, "teacher": teacher, "reason": reason} for i, reason in rejected.items()]


def write_rejects(out: Path, rejects: list[dict[str, Any]], of: int, tolerance: Tolerance) -> Metrics:
    """Write what cannot be labelled, and why. Raises StageFailed when that is more than the config allows."""
    write_table(out / REJECTED, rejects, REJECTS)
    count = len({row["id"] for row in rejects})
    allowed = tolerance.max_rejected_fraction
    if count > allowed * of:
        first = rejects[0]
        raise StageFailed(
            f"{count} of {of} prompts cannot be labelled, more than labeling.max_rejected_fraction {allowed:g} allows "
            f"(id {first['id']}{', teacher ' + first['teacher'] if first['teacher'] else ''}: {first['reason']}); "
            f"raise it, or mend {'those prompts' if first['teacher'] else 'the label files'}"
        )
    return {"rejected": count}


def _votes(teacher: str, annotations: list[Annotation]) -> list[dict[str, Any]]:
    return [
        {"id": a.id, "worker": f"{teacher}/{a.annotator}".rstrip("/"), "label": int(np.argmax(a.probabilities))}
        for a in annotations
    ]
