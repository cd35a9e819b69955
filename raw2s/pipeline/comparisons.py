"""Every two students of a run against each other, and each against its best teacher, with p-values corrected together."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from raw2s.evaluation.comparing import holm, p_of_difference, visible_difference
from raw2s.evaluation.intervals import Samples, interval
from raw2s.results import Difference, Student


@dataclass(frozen=True, kw_only=True)
class Compared:
    students: list[Student]
    """With `over_best_p`."""
    differences: list[Difference]
    visible: float | None
    """None where no teacher was tested."""


def compare_students(students: Sequence[Student], samples: Sequence[Samples], best: Sequence[Samples | None]) -> Compared:
    """`samples` are the students' scores on the same resampled test sets and seeds, `best` those of each one's best teacher."""
    over_best = [own - teacher if teacher is not None else None for own, teacher in zip(samples, best, strict=True)]
    pairs = list(itertools.combinations(range(len(students)), 2))
    between = [samples[i] - samples[j] for i, j in pairs]
    tested = [difference for difference in over_best if difference is not None]
    p_values = [p_of_difference(difference) for difference in (*tested, *between)]
    corrected = holm(p_values)
    of_best, of_pairs = iter(corrected[: len(tested)]), corrected[len(tested) :]
    differences = [
        Difference(
            one=students[i].stage,
            other=students[j].stage,
            difference=students[i].score - students[j].score,
            ci95=interval(sampled),
            p=p,
            p_holm=p_holm,
        )
        for (i, j), sampled, p, p_holm in zip(pairs, between, p_values[len(tested) :], of_pairs, strict=True)
    ]
    with_p = [
        student if difference is None else student.model_copy(update={"over_best_p": next(of_best)})
        for student, difference in zip(students, over_best, strict=True)
    ]
    return Compared(students=with_p, differences=differences, visible=max(map(visible_difference, tested), default=None))
