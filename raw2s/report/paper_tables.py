"""The paper's own figures: Tables 1-5 of Bayesian WeakS-to-Strong (Cui et al., sections 6.1 and 6.2)."""

from collections.abc import Sequence
from dataclasses import dataclass

from raw2s.form import FormName
from raw2s.results import Student


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A student of Tables 2, 4 and 5."""

    method: str
    """single, naive, joint or bayesian, with its usual loss."""
    teacher: str | None = None
    """Of a single teacher's student."""
    confidence: bool
    aux: bool
    cdpo: bool = False


@dataclass(frozen=True, kw_only=True)
class Figures:
    """As printed."""

    score: float
    pgr: float


@dataclass(frozen=True, kw_only=True)
class PaperTables:
    """The tables of one task."""

    metric_title: str
    student: str
    ceiling: float
    teachers: dict[str, float]
    cells: dict[Cell, Figures]


def cell_of(student: Student) -> Cell | None:
    """Where a student of a run would stand in the paper's tables; None where they have no such method."""
    method, _, then = student.method.partition("+")
    method, _, teacher = method.partition(":")
    if method not in ("single", "naive", "joint", "bayesian") or then not in ("", "cdpo"):
        return None
    return Cell(method=method, teacher=teacher or None, confidence=student.confidence, aux=student.aux, cdpo=bool(then))


def places(students: Sequence[Student]) -> list[Cell | None]:
    """Where each student of a run stands; the paper's multi-weak ones learn from all teachers, with weights that are given."""
    every = max((len(student.learned_from) for student in students), default=0)
    cells = [cell_of(student) for student in students]
    return [
        None
        if cell is not None and cell.teacher is None and (student.weighting == "devel" or len(student.learned_from) < every)
        else cell
        for cell, student in zip(cells, students, strict=True)
    ]


def _rows(confidence: bool, printed: dict[str, tuple[tuple[float, float], tuple[float, float]]]) -> dict[Cell, Figures]:
    """Of one table: by method the score and PGR without the auxiliary loss, then with it."""
    cells = {}
    for name, columns in printed.items():
        method, _, teacher = name.partition(":")
        for aux, (score, pgr) in zip((False, True), columns, strict=True):
            cells[Cell(method=method, teacher=teacher or None, confidence=confidence, aux=aux)] = Figures(score=score, pgr=pgr)
    return cells


TABLE_2 = _rows(
    True,
    {
        "single:gpt2-large": ((0.816, 0.547), (0.832, 0.635)),
        "single:opt-1.3b": ((0.811, 0.563), (0.828, 0.648)),
        "single:pythia-1.4b": ((0.774, 0.418), (0.800, 0.540)),
        "naive": ((0.818, 0.593), (0.844, 0.726)),
        "bayesian": ((0.822, 0.614), (0.855, 0.781)),
    },
)
TABLE_4 = _rows(
    False,
    {
        "single:gpt2-large": ((0.673, 0.108), (0.666, 0.047)),
        "single:opt-1.3b": ((0.634, -0.265), (0.569, -0.831)),
        "single:pythia-1.4b": ((0.695, 0.146), (0.688, 0.081)),
        "naive": ((0.689, 0.181), (0.673, 0.036)),
        "joint": ((0.713, 0.393), (0.706, 0.330)),
        "bayesian": ((0.700, 0.276), (0.697, 0.252)),
    },
)
TABLE_5 = _rows(
    True,
    {
        "single:gpt2-large": ((0.688, 0.230), (0.668, 0.069)),
        "single:opt-1.3b": ((0.593, -0.621), (0.703, 0.322)),
        "single:pythia-1.4b": ((0.702, 0.215), (0.703, 0.233)),
        "naive": ((0.711, 0.375), (0.700, 0.276)),
        "joint": ((0.706, 0.330), (0.706, 0.330)),
        "bayesian": ((0.715, 0.413), (0.726, 0.509)),
    },
) | {Cell(method="bayesian", confidence=True, aux=True, cdpo=True): Figures(score=0.728, pgr=0.526)}

PAPER: dict[FormName, PaperTables] = {
    "classes": PaperTables(
        metric_title="accuracy",
        student="Qwen-7B",
        ceiling=0.898,
        teachers={"gpt2-large": 0.717, "opt-1.3b": 0.699, "pythia-1.4b": 0.685},
        cells=TABLE_2,
    ),
    "text": PaperTables(
        metric_title="SLU-F1",
        student="Llama-2-7B",
        ceiling=0.781,
        teachers={"gpt2-large": 0.660, "opt-1.3b": 0.665, "pythia-1.4b": 0.680},
        cells=TABLE_4 | TABLE_5,
    ),
}
"""By the form of the labels; Tables 1 and 3 are the teachers and the ceiling."""
