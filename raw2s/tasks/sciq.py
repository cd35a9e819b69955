"""SciQ as the paper's classification task (section 5.1): a science question with one answer; is it the right one?

The data (CC BY-NC 3.0) does not ship: it is read from the hub or from a folder with train, valid and test .jsonl.
"""

from typing import Literal

from raw2s.section import Positive
from raw2s.tasks.balanced import BalancedSection, Question, Questions, balanced_task
from raw2s.tasks.sources import SourceRow, read_part, text_in
from raw2s.tasks.task import Task, TaskKind

CREDIT = "SciQ, CC BY-NC 3.0 (Welbl, Liu, Gardner: Crowdsourcing multiple choice science questions, W-NUT 2017)"
STEM = "Q: {question} A: "
"""openai's, before the answer."""
_ANSWERS = ("correct_answer", "distractor1", "distractor2", "distractor3")


class SciqSection(BalancedSection):
    name: Literal["sciq"] = "sciq"
    """Science questions, each with a right or a wrong answer (accuracy, 2 classes)."""
    data: str = "allenai/sciq"
    """A hub id, or a folder with train, valid and test .jsonl (.csv, .parquet)."""
    n_validation: Positive | None = 1000
    """Examples of the official validation set, on which checkpoints are chosen; null takes all 1,000."""
    n_test: Positive | None = 1000
    """Examples of the official test set; null takes all 1,000."""


def _question(row: SourceRow) -> Question:
    """`STEM` with its answers."""
    answers = tuple(text_in(row, column) for column in _ANSWERS)
    return Question(stem=STEM.format(question=text_in(row, "question")), answers=answers, right=0, wrong=(1, 2, 3))


def _make(section: SciqSection) -> Task:
    parts = [read_part("task.data", section.data, *names) for names in (("train",), ("validation", "valid"), ("test",))]
    train, validation, test = ([_question(row) for row in rows] for rows in parts)
    questions = Questions(train=train, validation=validation, test=test)
    return balanced_task(section, questions, credit=CREDIT, template=STEM + "{answer}")


SCIQ = TaskKind(section=SciqSection, make=_make)
