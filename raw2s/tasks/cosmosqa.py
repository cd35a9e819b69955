"""Cosmos QA as openai/weak-to-strong formats it: a passage and a question with one answer; is it the right one?

The official test set has no answers, so, as there, the official validation set is tested on. Its last rows validate instead.
"""

from typing import Literal

from raw2s.section import Positive
from raw2s.tasks.balanced import ANSWERS, BalancedSection, Question, Questions, balanced_task
from raw2s.tasks.sources import SourceRow, read_part, text_in
from raw2s.tasks.task import Task, TaskKind

CREDIT = "Cosmos QA, CC BY 4.0 (Huang, Le Bras, Bhagavatula, Choi: Machine reading comprehension with contextual commonsense reasoning, EMNLP 2019)"
STEM = "Context: {context}\nQuestion: {question}\nAnswer: "
"""openai's, before the answer."""
NONE_OF_THEM = "None of the above choices ."
"""Never shown as the right answer: it depends on answers that the prompt does not hold."""


class CosmosqaSection(BalancedSection):
    name: Literal["cosmosqa"] = "cosmosqa"
    """Passages with a question and a right or a wrong answer (accuracy, 2 classes)."""
    data: str = "allenai/cosmos_qa"
    """A hub id, or a folder with train and validation (or valid) .jsonl (.csv, .parquet)."""
    n_validation: Positive = 500
    """The last examples of the official validation set, on which checkpoints are chosen."""
    n_test: Positive | None = None
    """The first examples of the official validation set, for testing; null takes all but the `n_validation` last."""


def _question(row: SourceRow) -> Question:
    """`STEM` with its answers; `label` is the right one's number."""
    answers = tuple(text_in(row, f"answer{number}") for number in range(ANSWERS))
    right = _label(row)
    wrong = tuple(number for number, answer in enumerate(answers) if answer != answers[right])
    if not wrong:
        raise ValueError(f"{row.place}: all answers are the same; correct the row, or remove it")
    stem = STEM.format(context=text_in(row, "context"), question=text_in(row, "question"))
    return Question(stem=stem, answers=answers, right=right, wrong=wrong, may_be_right=NONE_OF_THEM not in answers[right])


def _label(row: SourceRow) -> int:
    label = str(row.values.get("label"))
    if label not in [str(number) for number in range(ANSWERS)]:
        raise ValueError(f"{row.place}: label is {label}; give the number of the right answer, 0 to {ANSWERS - 1}")
    return int(label)


def _make(section: CosmosqaSection) -> Task:
    parts = [read_part("task.data", section.data, *names) for names in (("train",), ("validation", "valid"))]
    train, official = ([_question(row) for row in rows] for rows in parts)
    if section.n_validation >= len(official):
        raise ValueError(f"task.n_validation: {section.n_validation} leaves none of {len(official):,} to test on; lower it")
    test = official[: -section.n_validation]
    questions = Questions(train=train, validation=official[len(test) :], test=test)
    return balanced_task(section, questions, credit=CREDIT, template=STEM + "{answer}")


COSMOSQA = TaskKind(section=CosmosqaSection, make=_make)
