"""A task of one's own by YAML alone: rows of files or of a hub data set, columns in a prompt, a column that holds the answer."""

import difflib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Annotated, Literal

from pydantic import Field, model_validator

from raw2s.evaluation.metrics import ACCURACY, EXACT_MATCH, ROUGE_L, SLU_F1, Metric, macro_f1
from raw2s.section import Positive
from raw2s.tasks.own_rows import MetricName, RowSection, answer_parser, read_examples
from raw2s.tasks.sources import SourceRow, read_source
from raw2s.tasks.task import Example, Halves, Part, Task, TaskKind

HUB_SPLITS = {"train": "train", "teacher": "train", "student": "train", "validation": "validation", "test": "test"}
"""The keys that name rows, and the split each takes of a hub data set."""
Parts = Mapping[str, Sequence[Example]]
"""The examples under each such key that the section gives."""
ClassName = Annotated[str, Field(min_length=1, coerce_numbers_to_str=True)]


class OwnSection(RowSection):
    name: Literal["own"] = "own"
    """Rows of yours, with a class or a text to give for each; see docs/tasks.md."""
    train: str | None = None
    """Rows that the seed splits into A and B: a .jsonl, .csv or .parquet file, a folder of them, or org/name[:config][@split]."""
    teacher: str | None = None
    """Instead of `train`: the rows of A, on which the teachers learn."""
    student: str | None = None
    """Instead of `train`: the rows of B, which the teachers label; their answers may be missing."""
    validation: str | None = None
    """The rows on which checkpoints are chosen; null, with `test` null as well, holds answered rows of `train` out."""
    test: str | None = None
    """The rows on which every model is tested; null, with `validation` null as well, holds answered rows of `train` out."""
    n_validation: Positive | None = None
    """Examples on which checkpoints are chosen; null takes all of `validation`, or without that a tenth."""
    n_test: Positive | None = None
    """Examples on which every model is tested; null takes all of `test`, or without that a tenth."""
    classes: tuple[ClassName, ...] | None = None
    """The classes in their order; null takes the answers of all files, sorted."""
    credit: str = "own data"
    """Who made the data, and under which licence: at the foot of the report."""

    @model_validator(mode="after")
    def _fits_together(self) -> "OwnSection":
        if self.train and (self.teacher or self.student):
            raise ValueError("train: is given beside teacher: or student:; give train alone, or teacher and student")
        if not self.train and not (self.teacher and self.student):
            given = "teacher" if self.teacher else "student" if self.student else None
            missing = "student" if self.teacher else "teacher"
            raise ValueError(
                f"{given}: is given without {missing}:; add it, or give train alone"
                if given
                else "no data to learn from; give train:, or teacher: and student:"
            )
        if (self.validation is None) != (self.test is None):
            given, missing = ("validation", "test") if self.test is None else ("test", "validation")
            raise ValueError(f"{given}: is given without {missing}:; add it, or remove both to hold rows of train out")
        if self.validation is None and not self.train:
            raise ValueError("validation: and test: are missing; add them, or give train alone, of which rows are then held out")
        if self.classes is not None and self.form == "text":
            raise ValueError("classes: is given with form: text; remove it, or set form: classes")
        if self.classes is not None and len(set(self.classes)) < max(2, len(self.classes)):
            raise ValueError(f"classes: {', '.join(self.classes)} are not two or more different names; correct them")
        return self


def _make(section: OwnSection) -> Task:
    if section.metric == "rouge_l" and find_spec("rouge_score") is None:
        raise ValueError("task.metric: rouge_l needs rouge-score; run pip install rouge-score")
    sources = {
        key: read_source(f"task.{key}", source, split) for key, split in HUB_SPLITS.items() if (source := getattr(section, key))
    }
    lacking = "student" if section.validation else "train"
    read = {key: read_examples(section, rows, may_lack=key == lacking) for key, rows in sources.items()}
    parts = read if section.validation else _hold_out(section, read["train"])
    classes = _classes(section, sources, read) if section.form == "classes" else ()
    return Task(
        name=section.name,
        form=section.form,
        classes=classes,
        metric=_metric(section.metric, classes),
        parse=answer_parser(section.metric),
        nothing=[] if section.metric == "slu_f1" else None,
        draw=partial(_draw, section, parts),
        held_out=partial(_held_out, section, parts),
        credit=section.credit,
        chat=section.chat,
        template=section.prompt,
        notes=(*_unanswered(section, parts), *_repeats(parts)),
    )


def _metric(name: MetricName, classes: tuple[str, ...]) -> Metric:
    if name == "macro_f1":
        return macro_f1(classes)
    return {metric.name: metric for metric in (ACCURACY, EXACT_MATCH, ROUGE_L, SLU_F1)}[name]


def _classes(section: OwnSection, sources: Mapping[str, Sequence[SourceRow]], parts: Parts) -> tuple[str, ...]:
    """The section's classes, after a look at every answer, or all answers there are."""
    answers = [
        (row.place, target)
        for key, rows in sources.items()
        for row, example in zip(rows, parts[key], strict=True)
        if (target := example["target"]) is not None
    ]
    found = tuple(sorted({target for _, target in answers}))
    if section.classes is None and len(found) < 2:
        raise ValueError(
            f"task.answer: every row answers {found[0]!r}; give rows of two classes or more, or correct the column's name"
        )
    classes = section.classes or found
    for place, target in answers:
        if target not in classes:
            close = difflib.get_close_matches(target, classes, n=1)
            advice = f"did you mean {close[0]}?" if close else "correct it, or add it to task.classes"
            raise ValueError(f"{place}: {target!r} is none of the classes {', '.join(classes)}; {advice}")
    return classes


def _hold_out(section: OwnSection, rows: Sequence[Example]) -> Parts:
    """`train` with answered rows of it as validation and test, by one fixed shuffle, so that no seed moves what is compared."""
    answered = [row for row in rows if row["target"] is not None]
    if not answered:
        raise ValueError(f"task.answer: no row of {section.train} has an answer in column {section.answer!r}; correct it")
    tenth = max(1, len(answered) // 10)
    validation, test = section.n_validation or tenth, section.n_test or tenth
    if validation + test >= len(answered):
        raise ValueError(
            f"task.n_validation + task.n_test is {validation + test}, and {section.train} has {len(answered):,} answered rows, of "
            "which one at least must be left to learn from; lower them"
        )
    held = random.Random(0).sample(answered, validation + test)
    ids = {row["id"] for row in held}
    return {"train": [row for row in rows if row["id"] not in ids], "validation": held[:validation], "test": held[validation:]}


def _draw(section: OwnSection, parts: Parts, seed: int) -> Halves:
    """`train` shuffled and cut in two; of `teacher` and `student` apart, samples in their order (all rows without a size)."""
    rng = random.Random(seed)
    if "train" in parts:
        return _cut(section, parts["train"], rng)
    return Halves(
        *(
            [parts[key][row] for row in sorted(rng.sample(range(len(parts[key])), _size(section, parts, key)))]
            for key in ("teacher", "student")
        )
    )


def _cut(section: OwnSection, rows: Sequence[Example], rng: random.Random) -> Halves:
    """A and B of `train`; what has no answer can only be in B."""
    answered = [row for row in rows if row["target"] is not None]
    taught = section.n_teacher or max(1, len(answered) // 2)
    labeled = section.n_student or max(1, len(rows) - taught)
    if taught + labeled > len(rows):
        raise ValueError(
            f"task.n_teacher + task.n_student is {taught + labeled}, but {section.train} holds {len(rows):,} rows"
            + ("" if section.validation else " beside those held out")
            + "; lower them"
        )
    if len(answered) == len(rows):
        drawn = rng.sample(rows, taught + labeled)
        return Halves(drawn[:taught], drawn[taught:])
    if taught > len(answered):
        raise ValueError(f"task.n_teacher: {taught} is more than the {len(answered):,} answered rows left; lower it")
    teacher = rng.sample(answered, taught)
    ids = {row["id"] for row in teacher}
    return Halves(teacher, rng.sample([row for row in rows if row["id"] not in ids], labeled))


def _held_out(section: OwnSection, parts: Parts, part: Part) -> list[Example]:
    """A prefix of one fixed shuffle, so that no seed moves what is compared."""
    return random.Random(0).sample(parts[part], len(parts[part]))[: _size(section, parts, part)]


def _size(section: OwnSection, parts: Parts, key: str) -> int:
    """How many rows of a part are wanted."""
    size, there = getattr(section, f"n_{key}"), len(parts[key])
    if size is not None and size > there:
        raise ValueError(f"task.n_{key}: {size} is more than the {there:,} rows there are; lower it, or set null for all")
    return size or there


def _unanswered(section: OwnSection, parts: Parts) -> tuple[str, ...]:
    """A reader should know of rows that only B can take; a gap in the column is easily overlooked."""
    lacking = sum(row["target"] is None for row in parts.get("train", []))
    return (f"{lacking:,} rows of {section.train} have no answer, so they are in B if anywhere",) if lacking else ()


def _repeats(parts: Parts) -> tuple[str, ...]:
    """What a reader should know of prompts that occur more than once; none is dropped."""
    prompts = {key: [example["prompt"] for example in examples] for key, examples in parts.items()}
    learned = Counter(prompt for key in ("train", "teacher", "student") for prompt in prompts.get(key, []))
    notes = []
    if repeated := learned.total() - len(learned):
        notes.append(f"{repeated:,} of {learned.total():,} prompts to learn from repeat another, so A and B may share texts")
    for key in ("validation", "test"):
        if seen := sum(prompt in learned for prompt in prompts[key]):
            notes.append(f"{seen:,} of {len(prompts[key]):,} prompts of task.{key} are also among those to learn from")
    if seen := len(set(prompts["validation"]) & set(prompts["test"])):
        notes.append(f"{seen:,} prompts of task.test are also in task.validation")
    return tuple(notes)


OWN = TaskKind(section=OwnSection, make=_make)
