"""Which claims of the paper a run's students can answer, each as a contrast: weights of the students that sum to 0."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raw2s.form import FormName
from raw2s.report.paper_tables import PAPER, Cell, places
from raw2s.results import Student

Weights = NDArray[np.float64]
"""(students,): their scores times these, summed, are the effect."""
NAMES = {
    "single": "a single teacher's student",
    "naive": "naive multi-weak",
    "joint": "joint decoding",
    "bayesian": "Bayesian multi-weak",
}


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A statement that holds where the effect has the sign of the paper's."""

    statement: str
    weights: Weights
    paper: float | None
    """The effect in the paper's tables; None where it gives no figure, and the statement is of an effect above 0."""


@dataclass(frozen=True, kw_only=True)
class _Question:
    """`{}` of the text is what the paper's tables say: the first of `words` where the effect is above 0, else the second."""

    text: str
    words: tuple[str, str]

    def answered(self, effect: float) -> str:
        said = self.text.format(self.words[0] if effect > 0 else self.words[1])
        return said[0].upper() + said[1:]


BEATS, HELPS, ADDS = ("beats", "does not beat"), ("helps", "does not help"), ("adds", "adds nothing")


def contrasts(students: Sequence[Student], form: FormName) -> list[Contrast]:
    """The claims whose both sides are among the students, in the paper's order.

    Only what its tables have is compared, and its effect is over the same methods and settings. Every effect is a mean of differences
    between two students that differ in one thing; students that share a place in the tables count as their mean.
    """
    printed = PAPER[form].cells
    cells = places(students)
    shared = {_any_teacher(cell) for cell in printed} & {_any_teacher(cell) for cell in cells if cell is not None}
    own = [cell if cell is not None and _any_teacher(cell) in shared else None for cell in cells]
    theirs = [cell if _any_teacher(cell) in shared else None for cell in printed]
    figures = [figures.score for figures in printed.values()]
    of_paper = _weighed(theirs, figures)
    found = []
    for question, weights in _weighed(own, [student.score for student in students]).items():
        effect = round(float(of_paper[question] @ figures), 9)  # as printed: equal scores give no rounding's sign
        found.append(Contrast(statement=question.answered(effect), weights=weights, paper=effect))
    return found


def _any_teacher(cell: Cell) -> Cell:
    return replace(cell, teacher=None)


def _weighed(cells: Sequence[Cell | None], scores: Sequence[float]) -> dict[_Question, Weights]:
    """The weights of every question that can be asked of students at these places."""
    weights: dict[_Question, Weights] = {}
    for method in ("naive", "joint", "bayesian"):
        for which in ("best", "mean"):
            pairs = _against_singles(cells, scores, method, which)
            text = f"{NAMES[method]} {{}} the {which} of the single teachers' students"
            weights |= _mean_of(_Question(text=text, words=BEATS), pairs)
    weights |= _rows_of(cells, "Bayesian multi-weak {} naive multi-weak", BEATS, {"method": "bayesian"}, {"method": "naive"})
    for other in ("naive", "bayesian"):
        text = f"joint decoding {{}} {NAMES[other]} with hard labels"
        weights |= _rows_of(cells, text, BEATS, {"method": "joint", "confidence": False}, {"method": other})
    text = "Bayesian multi-weak {} joint decoding with soft labels"
    weights |= _rows_of(cells, text, BEATS, {"method": "bayesian", "confidence": True}, {"method": "joint"})
    for confidence, labels in ((True, "soft"), (False, "hard")):
        text = f"the auxiliary loss {{}} {{who}} with {labels} labels"
        weights |= _over_methods(cells, text, {"aux": True, "confidence": confidence}, {"aux": False})
    weights |= _over_methods(cells, "confidence (soft labels) {} {who}", {"confidence": True}, {"confidence": False})
    text = "preference training (cDPO) {} to Bayesian multi-weak with the auxiliary loss"
    weights |= _rows_of(cells, text, ADDS, {"method": "bayesian", "aux": True, "cdpo": True}, {"cdpo": False})
    return weights


def _over_methods(
    cells: Sequence[Cell | None], text: str, ours: dict[str, Any], other: dict[str, Any]
) -> dict[_Question, Weights]:
    """Of all students that differ so, where they are of several methods, and of each method."""
    weights: dict[_Question, Weights] = {}
    for method in NAMES:
        weights |= _rows_of(cells, text.replace("{who}", NAMES[method]), HELPS, ours | {"method": method}, other)
    if len(weights) > 1:
        weights = _rows_of(cells, text.replace("{who}", "the students on average"), HELPS, ours, other) | weights
    return weights


def _rows_of(
    cells: Sequence[Cell | None], text: str, words: tuple[str, str], ours: dict[str, Any], other: dict[str, Any]
) -> dict[_Question, Weights]:
    """Every place with `ours` against the one that differs from it in `other`; of cDPO only what asks for it."""
    wanted = {"cdpo": False} | ours
    pairs = []
    for cell in dict.fromkeys(cell for cell in cells if cell is not None):
        twin = replace(cell, **other)
        if all(getattr(cell, name) == value for name, value in wanted.items()) and twin in cells:
            pairs.append(_at(cells, [cell]) - _at(cells, [twin]))
    return _mean_of(_Question(text=text, words=words), pairs)


def _against_singles(cells: Sequence[Cell | None], scores: Sequence[float], method: str, which: str) -> list[Weights]:
    """A method against the students of two or more single teachers, in every setting where there are such."""
    pairs = []
    for cell in dict.fromkeys(cell for cell in cells if cell is not None and cell.method == method and not cell.cdpo):
        alike = replace(cell, method="single")
        singles = list(dict.fromkeys(c for c in cells if c is not None and c.teacher is not None and _any_teacher(c) == alike))
        if len(singles) > 1:
            if which == "best":
                singles = [max(singles, key=lambda single: float(_at(cells, [single]) @ scores))]
            pairs.append(_at(cells, [cell]) - _at(cells, singles))
    return pairs


def _at(cells: Sequence[Cell | None], places: Sequence[Cell]) -> Weights:
    """The mean over the places of the mean over the students there."""
    here = np.array([[cell == place for cell in cells] for place in places], dtype=np.float64)
    return np.asarray((here / here.sum(axis=1, keepdims=True)).mean(axis=0))


def _mean_of(question: _Question, pairs: Sequence[Weights]) -> dict[_Question, Weights]:
    return {question: np.mean(pairs, axis=0)} if pairs else {}
