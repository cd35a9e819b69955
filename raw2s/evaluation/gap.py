"""Performance gap recovered (section 5.2 of the paper)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Scores = float | NDArray[np.float64]


def performance_gap_recovered(student: float, weak: float | Sequence[float], strong: float) -> float:
    """PGR, Eq. 13: (student - weak) / (strong - weak); for several teachers the mean of the PGRs over each of them.

    All scores in the same unit. `strong` is the student's base trained on ground truth. Below 0 the student is worse than its
    teacher. `math.nan` when `strong` does not exceed every teacher: there is no gap to recover, and leaving a teacher out would
    change what the mean says.

    Raises ValueError when there is no teacher.
    """
    weak_N = np.atleast_1d(np.asarray(weak, dtype=np.float64))
    if weak_N.size == 0:
        raise ValueError("No teacher's score was given. Pass one number, or one number per teacher.")
    return float(gap_recovered(student, weak_N, strong))


def gap_recovered(student: Scores, weak_N: NDArray[np.float64], strong: Scores) -> NDArray[np.float64]:
    """Eq. 13 element by element: (N, ...) teachers and (...) students and ceilings -> (...), nan where undefined."""
    gap_N = strong - weak_N
    pgr_N = np.divide(student - weak_N, gap_N, out=np.full(gap_N.shape, np.nan), where=gap_N > 0)
    return np.asarray(pgr_N.mean(axis=0))
