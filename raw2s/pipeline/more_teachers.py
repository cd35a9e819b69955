"""Whether more teachers help: a run's students by the number of teachers that they learned from.

The paper has three teachers in all its tables, and says: "We believe that the capabilities of the strong model can be recovered to a
greater extent when more weak models are involved" (Appendix A).
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from raw2s.evaluation.intervals import Samples, interval
from raw2s.pipeline.contrasts import Contrast, Weights
from raw2s.results import SomeTeachers, Student, Weighting

Numbers = dict[int, list[int]]
"""By the number of teachers, which of the students learned from so many."""


def more_teachers(students: Sequence[Student]) -> list[Contrast]:
    """Of every method with equal weights, its students of each number of teachers against those of the next smaller one, and the most
    against the fewest.

    The effect is as much that of who is in, unless every teacher stands equally often among the students of a number.
    """
    return [
        Contrast(
            statement=f"{more} teachers beat {fewer} ({label})",
            weights=_mean(students, numbers[more]) - _mean(students, numbers[fewer]),
            paper=None,
        )
        for (label, weighting), numbers in _by_method(students).items()
        if weighting == "equal"
        for fewer, more in dict.fromkeys([*pairwise(numbers), (min(numbers), max(numbers))])
        if fewer < more
    ]


def some_teachers(students: Sequence[Student], samples: Sequence[Samples]) -> list[SomeTeachers]:
    """All students of several teachers, and of a number of them; none where no method has several numbers. `samples` are theirs."""
    methods = _by_method(students)
    if not any(len(numbers) > 1 for numbers in methods.values()):
        return []
    found = []
    for (label, weighting), numbers in methods.items():
        for number, places in numbers.items():
            pgrs = [pgr for place in places if (pgr := students[place].pgr) is not None]
            found.append(
                SomeTeachers(
                    method=label,
                    weighting=weighting,
                    teachers=number,
                    stages=[students[place].stage for place in places],
                    score=float(np.mean([students[place].score for place in places])),
                    ci95=interval(np.mean([samples[place] for place in places], axis=0)),
                    pgr=float(np.mean(pgrs)) if len(pgrs) == len(places) else None,
                )
            )
    return found


def _by_method(students: Sequence[Student]) -> dict[tuple[str, Weighting], Numbers]:
    """Numbers in rising order; methods that are of one teacher by nature are left out."""
    found: dict[tuple[str, Weighting], Numbers] = {}
    for place, student in enumerate(students):
        if student.learned_from and not student.method.startswith("single:"):
            numbers = found.setdefault((student.label, student.weighting), {})
            numbers.setdefault(len(student.learned_from), []).append(place)
    return {method: dict(sorted(numbers.items())) for method, numbers in found.items()}


def _mean(students: Sequence[Student], places: Sequence[int]) -> Weights:
    return np.isin(np.arange(len(students)), places) / len(places)
