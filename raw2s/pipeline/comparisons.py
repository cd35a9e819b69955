"""Every two students of a run against each other, and each against its best teacher, with p-values corrected in a table each."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raw2s.evaluation.comparing import holm, p_of_difference, visible_difference
from raw2s.evaluation.intervals import Samples, interval, sign_test
from raw2s.pipeline.doubt_claims import Weighed
from raw2s.results import Difference, Student


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """A student and what its tests gave; all of a run on the same examples, resampled test sets and seeds."""

    student: Student
    samples: Samples
    per_example: NDArray[np.float64]
    """(examples,): the score of each alone, the mean over the seeds."""
    best: Samples | None
    """Of the best teacher that it learned from; None where none was tested."""
    doubt: Weighed | None = None
    """None where it was not asked for."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    students: list[Student]
    """With `over_best_p`."""
    differences: list[Difference]
    visible: float | None
    """To the best teacher; None where no teacher was tested."""
    visible_between: float | None
    """Between two students; None of one."""


def compare_students(students: Sequence[Resampled]) -> Compared:
    """p-values are corrected (Holm) for the table they stand in: the students against their best teachers, and the pairs of students.

    In one family with the 300 pairs of 25 students none of the 25 questions that are asked would find an answer.
    """
    over_best = [own.samples - own.best if own.best is not None else None for own in students]
    pairs = list(itertools.combinations(students, 2))
    between = [one.samples - other.samples for one, other in pairs]
    to_teachers = [difference for difference in over_best if difference is not None]
    of_best = iter(holm([p_of_difference(difference) for difference in to_teachers]))
    p_values = [p_of_difference(difference) for difference in between]
    sign_p = [sign_test(one.per_example, other.per_example) for one, other in pairs]
    differences = [
        Difference(
            one=one.student.stage,
            other=other.student.stage,
            difference=one.student.score - other.student.score,
            ci95=interval(sampled),
            p=p,
            p_holm=p_holm,
            sign_p=sign,
            sign_p_holm=sign_holm,
        )
        for (one, other), sampled, p, p_holm, sign, sign_holm in zip(
            pairs, between, p_values, holm(p_values), sign_p, holm(sign_p), strict=True
        )
    ]
    with_p = [
        own.student if difference is None else own.student.model_copy(update={"over_best_p": next(of_best)})
        for own, difference in zip(students, over_best, strict=True)
    ]
    return Compared(
        students=with_p,
        differences=differences,
        visible=max(map(visible_difference, to_teachers), default=None),
        visible_between=max(map(visible_difference, between), default=None),
    )
