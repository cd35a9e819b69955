"""How many rows of one file go where: as much to learn from as there is, and enough to choose and test by."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raw2s.starting.columns import Columns
from raw2s.starting.label_columns import LabelColumns

FEWEST = 16
"""Rows of a part that a model learns from: those of one step."""
FEWEST_HELD = 4
"""Rows to choose by, and to test by; a user should have hundreds."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Rows of each part."""

    teacher: int
    student: int
    validation: int
    test: int
    unlabeled: float
    """Share of B, about, that no label file labels; 0 without label files."""


def sizes_of(file: Path, columns: Columns, labels: Sequence[LabelColumns]) -> Sizes:
    """Raises ValueError, in one line, where there are too few rows.

    Rows without an answer are B. Where there are some, B has no others, and all answered rows serve the other parts. Label files need
    no A, so beside them it is as small as can be.
    """
    answered, rows = sum(columns.answered), len(columns.answered)
    gaps = answered < rows
    held = answered // (4 if gaps and not labels else 2 if gaps else 10) - (1 if gaps and labels else 0)
    left = answered - 2 * held
    taught = left if gaps else 1 if labels else left // 2
    sizes = Sizes(
        teacher=taught,
        student=rows - 2 * held - taught,
        validation=held,
        test=held,
        unlabeled=_unlabeled(columns, labels) if labels else 0.0,
    )
    fewest = 1 if labels else FEWEST
    if held < FEWEST_HELD or taught < fewest or sizes.student < FEWEST:
        raise ValueError(
            f"{file}: {rows} rows, {answered} of them with an answer, are too few to learn from and to test by; give "
            "100 rows, 40 of them with an answer, or more"
        )
    return sizes


def _unlabeled(columns: Columns, labels: Sequence[LabelColumns]) -> float:
    """Of the rows that B is drawn from. Raises ValueError for label files that number rows otherwise."""
    labeled = frozenset[int]().union(*(own.ids for own in labels))
    if columns.id is None and (beyond := max(labeled, default=0)) >= len(columns.ids):
        raise ValueError(
            f"{labels[0].file}: a label file names id {beyond}, and the data have rows 0 to {len(columns.ids) - 1} and no column of "
            "ids; add a column id to the data"
        )
    gaps = not all(columns.answered)
    pool = [i for i, answered in zip(columns.ids, columns.answered, strict=True) if not (gaps and answered)]
    return math.fsum(i not in labeled for i in pool) / len(pool)
