"""Multiple choice made binary, as openai/weak-to-strong does: a question with one of its answers; is that the right one?

Sampling and order are theirs (weak_to_strong/datasets.py, `load_dataset` and `format_sciq`): with the seed's generator, every row in
order shows its right answer with probability 1/2, else a wrong one; `datasets` shuffles the rows and splits them in two halves. The
second half, "test", is the one that weak labels are made for: B.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Literal

from raw2s.evaluation.metrics import ACCURACY
from raw2s.section import Positive
from raw2s.tasks.task import Example, Halves, Part, Task, TaskSection

CLASSES = ("false", "true")
"""Whether the shown answer is the right one; in the order of openai's `soft_label`."""
ANSWERS = 4
"""Answers a question has."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A row: the prompt up to the answer, the `ANSWERS` answers, which is right and which may be shown as wrong."""

    stem: str
    answers: tuple[str, ...]
    right: int
    wrong: tuple[int, ...]
    may_be_right: bool = True
    """Whether the right answer is ever shown."""


@dataclass(frozen=True, kw_only=True)
class Questions:
    """The rows of a data set; the halves are drawn from `train`."""

    train: Sequence[Question]
    validation: Sequence[Question]
    test: Sequence[Question]


class BalancedSection(TaskSection):
    """What such tasks may be told."""

    balance: Literal["sampled", "exact"] = "sampled"
    """Right answers in half of the examples on average, drawn as openai does, or in exactly half of A, of B and of each test set."""
    n_teacher: Positive | None = 5000
    """Examples in A, on which the teachers learn from ground truth: the first of openai's first half; null takes all of it."""
    n_student: Positive | None = 5000
    """Examples in B, which the teachers label: the first of openai's second half; null takes all of it."""


def balanced_task(section: BalancedSection, questions: Questions, *, credit: str, template: str) -> Task:
    """The binary task over a data set's questions; `template` is what a prompt is, with column `answer` for the one that is shown."""
    return Task(
        name=section.name,
        form="classes",
        classes=CLASSES,
        metric=ACCURACY,
        parse=str,
        nothing=None,
        draw=partial(_draw, section, questions.train),
        held_out=partial(_held_out, section, questions),
        credit=credit,
        template=template,
    )


def _draw(section: BalancedSection, questions: Sequence[Question], seed: int) -> Halves:
    halves = _half_rows(len(questions), seed)
    wanted = {"n_teacher": section.n_teacher, "n_student": section.n_student}
    for (key, size), rows in zip(wanted.items(), halves, strict=True):
        if size is not None and size > len(rows):
            raise ValueError(
                f"task.{key}: {size} is more than the {len(rows):,} examples of its half; lower it, or set null for all"
            )
    teacher, student = halves[0][: section.n_teacher], halves[1][: section.n_student]
    if section.balance == "sampled":
        shown = _sampled(questions, Random(seed))
        examples = [_example(row, question, answer) for row, (question, answer) in enumerate(zip(questions, shown, strict=True))]
        return Halves([examples[row] for row in teacher], [examples[row] for row in student])
    rng = Random(seed)
    return Halves(_exact_examples(questions, teacher, rng), _exact_examples(questions, student, rng))


def _held_out(section: BalancedSection, questions: Questions, part: Part) -> list[Example]:
    """The first rows of a part, their answers drawn with openai's seed 0 whatever the run's."""
    rows = questions.validation if part == "validation" else questions.test
    size = section.n_validation if part == "validation" else section.n_test
    if size is not None and size > len(rows):
        raise ValueError(f"task.n_{part}: {size} is more than the {len(rows):,} there are; lower it, or set null for all")
    if section.balance == "exact":
        return _exact_examples(rows, range(len(rows))[:size], Random(0))
    rows = rows[:size]
    return [
        _example(row, question, answer)
        for row, (question, answer) in enumerate(zip(rows, _sampled(rows, Random(0)), strict=True))
    ]


def _half_rows(size: int, seed: int) -> tuple[list[int], list[int]]:
    """Row numbers of the two halves, in openai's order."""
    from datasets import Dataset  # seconds to import  # noqa: PLC0415

    shuffled = Dataset.from_dict({"row": list(range(size))}).shuffle(seed=seed)
    halves = shuffled.train_test_split(test_size=0.5, seed=seed)
    return list(halves["train"]["row"]), list(halves["test"]["row"])


def _sampled(questions: Sequence[Question], rng: Random) -> list[int]:
    """The answer shown with each question, by openai's draws in their order."""
    return [q.right if q.may_be_right and rng.random() < 0.5 else rng.choice(q.wrong) for q in questions]


def _exact_examples(questions: Sequence[Question], rows: Sequence[int], rng: Random) -> list[Example]:
    """Examples of these rows, half of them (rounded down) with their right answer."""
    able = [row for row in rows if questions[row].may_be_right]
    half = len(rows) // 2
    if len(able) < half:
        raise ValueError(
            f"task.balance: only {len(able)} of {len(rows)} questions have a right answer to show; set it to sampled"
        )
    right = set(rng.sample(able, half))
    return [
        _example(row, questions[row], questions[row].right if row in right else rng.choice(questions[row].wrong)) for row in rows
    ]


def _example(row: int, question: Question, answer: int) -> Example:
    """Its id names row and answer, so that a label file made with one seed never labels another answer of another seed."""
    name = CLASSES[answer == question.right]
    return Example(id=row * ANSWERS + answer, prompt=question.stem + question.answers[answer], target=name, gold=name)
