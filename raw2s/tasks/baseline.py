"""The score that needs no model: of all constant answers, the one that is best on the validation set."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from raw2s.evaluation.metrics import Counts
from raw2s.tasks.task import Example, Task

CANDIDATES = 100
"""Most texts that are tried: the most frequent answers of the validation set."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What one answer to every prompt scores on the test set."""

    answer: str
    score: float
    """In [0, 1]."""
    counts: Counts
    """(U, C): the metric's counts of every test example, for intervals and paired tests."""


def trivial_baseline(task: Task, validation: Sequence[Example], test: Sequence[Example]) -> Baseline:
    """The class, or the frequent text of the validation set, that scores best there, scored on the test set.

    Of equals the first: in the order of the classes, or the more frequent text.
    """
    frequent = Counter(str(example["target"]) for example in validation).most_common(CANDIDATES)
    answers = task.classes or [text for text, _ in frequent]
    best = max(answers, key=lambda answer: _score(task, _constant_counts(task, validation, answer)))
    counts = _constant_counts(task, test, best)
    return Baseline(answer=best, score=_score(task, counts), counts=counts)


def _constant_counts(task: Task, examples: Sequence[Example], answer: str) -> Counts:
    parsed = task.parse(answer)
    return task.metric.counts(
        [example["gold"] for example in examples], [task.nothing if parsed is None else parsed] * len(examples)
    )


def _score(task: Task, counts: Counts) -> float:
    return float(task.metric.score(counts.mean(axis=0)))
