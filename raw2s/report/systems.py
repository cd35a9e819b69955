"""What table, figures and page show of the results: a row per system, and notes on the numbers."""

from dataclasses import dataclass, replace
from typing import Literal

from raw2s.record import Interval
from raw2s.results import Baseline, Results, Student, System, Teacher

UNPARSABLE = 0.2
"""Share of unparsable answers above which the notes say so."""

BY_TEACHERS = (
    "Means over the students that learned from so many of the teachers. Intervals hold test examples and seeds, not which teachers they "
    "were; the PGR is over the teachers that a student learned from. The claims have the step from each number to the next."
)
"""Under the table of `Results.by_teachers`."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One row: a tested model, or the trivial baseline, which has no stage."""

    role: Literal["baseline", "teacher", "ceiling", "student"]
    name: str
    label: str
    """The name that tells this system from all others of the run."""
    score: float
    stage: str = ""
    ci95: Interval = (None, None)
    per_seed: tuple[float, ...] = ()
    standard_error: float | None = None
    empty: float | None = None
    unparsable: float | None = None
    student: Student | None = None
    """Where it is one: its settings and its PGR."""


def list_systems(results: Results) -> list[Shown]:
    """Baseline, tested teachers, ceiling, students, in the order of the results."""
    systems = [] if results.baseline is None else [_baseline(results.baseline)]
    systems += [_tested("teacher", teacher, teacher.title) for teacher in results.tested]
    systems += [] if results.ceiling is None else [_tested("ceiling", results.ceiling, results.ceiling.title)]
    students = [replace(_tested("student", s, s.label), student=s) for s in results.students]
    for apart in (lambda own, alike: _of_teachers(own, len(results.tested)), _of_values, lambda own, alike: _numbered(own)):
        alike = {own.label: [other for other in students if other.label == own.label] for own in students}
        students = [apart(own, alike[own.label]) if len(alike[own.label]) > 1 else own for own in students]
    return systems + students


def _baseline(baseline: Baseline) -> Shown:
    name = f"always {baseline.answer}"
    return Shown(role="baseline", name=name, label=name, score=baseline.score)


def _tested(role: Literal["teacher", "ceiling", "student"], system: System | Teacher, label: str) -> Shown:
    assert system.score is not None, "only tested systems are shown"
    return Shown(
        role=role,
        name=system.title,
        label=label,
        score=system.score,
        stage=system.stage,
        ci95=system.ci95,
        per_seed=tuple(system.per_seed),
        standard_error=system.standard_error,
        empty=system.empty,
        unparsable=system.unparsable,
    )


def _of_teachers(shown: Shown, of: int) -> Shown:
    """Named apart from its like by its teachers, where it has not all of them, and by how they are weighted."""
    assert shown.student is not None
    own = shown.student.learned_from
    who = f" of {listed(own)}" if 0 < len(own) < of else ""
    return _renamed(shown, shown.name + who + (", weights fitted on devel" if shown.student.weighting == "devel" else ""))


def _of_values(shown: Shown, alike: list[Shown]) -> Shown:
    """Named apart from its like by those of its loss's values that differ among them: `(gamma_max 0.02)`."""
    values = [own.student.loss_values for own in alike if own.student]
    differing = [key for key in values[0] if len({own.get(key) for own in values}) > 1]
    assert shown.student is not None
    own = [f"{key} {shown.student.loss_values[key]:g}" for key in differing if key in shown.student.loss_values]
    return _renamed(shown, f"{shown.name} ({listed(own)})") if own else shown


def _numbered(shown: Shown) -> Shown:
    """Named apart from its like by the number in its stage's name."""
    return _renamed(shown, f"{shown.name} ({shown.stage.partition('-')[0]})")


def _renamed(shown: Shown, name: str) -> Shown:
    return replace(shown, name=name, label=f"{name} with {shown.student.settings}" if shown.student else name)


def stage_title(stage: str, systems: list[Shown]) -> str:
    """`cdpo/0@2` -> the label of that system and `@2`; a stage that trained none of them keeps its name."""
    base, at, seed = stage.partition("@")
    return next((s.label for s in systems if s.stage == base), base) + at + seed


def fraction(value: float | None) -> str:
    return "undefined" if value is None else f"{value:z.3f}"


def score_text(shown: Shown) -> str:
    """The score, of several seeds with the standard error over them."""
    error = shown.standard_error
    return fraction(shown.score) + ("" if error is None else f" ± {fraction(error)}")


def signed(value: float | None) -> str:
    return "undefined" if value is None else f"{value:+z.3f}" if round(value, 3) else "0.000"


def p_text(p: float | None) -> str:
    return "undefined" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def bounds(ci95: Interval) -> str:
    low, high = ci95
    return "undefined" if low is None or high is None else f"[{fraction(low)}, {fraction(high)}]"


def pgr_text(pgr: float | None, noise: bool) -> str:
    """Starred over a gap that is noise: see `notes`."""
    return fraction(pgr) + (" *" if noise and pgr is not None else "")


def listed(parts: list[str], separator: str = ", ") -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [separator.join(parts[:-1]), parts[-1]]))


def notes(results: Results) -> list[str]:
    """How to read the numbers, one sentence or two a line; what makes a PGR worthless comes first."""
    lines = []
    ceiling, given = results.ceiling, results.given
    if noisy := results.noisy:
        lines.append(
            f"* WITHIN THE NOISE: the gap between the ceiling and {_teachers(noisy)} is not distinguishable from none "
            "(its 95 % interval reaches 0). A PGR over such a gap means nothing."
        )
    if ceiling is None:
        lines.append("B has no ground truth: there is no ceiling, and so no PGR. Compare the students with the teachers.")
    else:
        if high := [t.name for t in results.tested if t.score is not None and t.score >= ceiling.score]:
            lines.append(f"PGR is undefined where a teacher scores at least as high as the ceiling; here {_teachers(high)}.")
        lines.append(
            "PGR, performance gap recovered (Eq. 13): (student - teacher) / (ceiling - teacher), the mean over the "
            f"{'tested ' if given else ''}teachers whose labels it learned: all, or of a single teacher's student that one. "
            "0 is the teachers' level, 1 the ceiling's."
        )
    lines += [_given(teacher) for teacher in given]
    lines += [f"The data: {note}." for note in results.notes]
    lines += [" ".join(results.truth)] if results.truth else []
    seeds = results.seeds
    over = f"Intervals in brackets: 95 %, bootstrap over the {results.test_examples:,} test examples"
    lines.append(
        f"{over} and the seeds {listed([str(s) for s in seeds])}, paired in both; of few seeds it is too narrow. "
        "±: the standard error over the seeds."
        if len(seeds) > 1
        else f"{over}, paired, of one seed ({seeds[0]}): they and p hold the test examples alone, and training again with another seed moves "
        "the scores on top of that."
    )
    if results.visible is not None or results.differences:
        lines.append(
            "p: of no difference, two-sided, from the same bootstrap, corrected (Holm) for the table that it stands in. To see a "
            "difference: to find it, uncorrected, in four of five runs of this size."
        )
    if results.baseline is not None:
        lines.append(
            "always ...: the constant answer that scores best on the validation examples; what knows nothing gets that much."
        )
    if broken := [s.label for s in list_systems(results) if (s.unparsable or 0.0) > UNPARSABLE]:
        lines.append(
            f"UNPARSABLE: more than {UNPARSABLE:.0%} of the answers of {listed(broken, '; ')} are not in the asked format and count as "
            "empty. Soft labels of weak teachers can do this to a small student; try confidence: false, more rows in B, or a lower learning rate."
        )
    if results.form == "text":
        lines.append(
            "empty: answers that name nothing, which may be right; unparsable: not in the asked format, counted as empty."
        )
    return lines


def _given(teacher: Teacher) -> str:
    assert teacher.on_b is not None
    on_b = teacher.on_b
    items, all_items = sum(on_b.items), sum(on_b.items) + sum(on_b.missing)
    if on_b.score is None:
        said = f"it labels {items:,} of the {all_items:,} training items, whose ground truth is not known"
    else:
        said = (
            f"{fraction(on_b.score)} {bounds(on_b.ci95)} against the ground truth of the {items:,} of {all_items:,} "
            "training items that it labels"
        )
    return f"teacher {teacher.name}, labels without a model: {said}. It answers no test example and is in no PGR."


def _teachers(names: list[str]) -> str:
    return f"teacher{'s' if len(names) > 1 else ''} {listed(names)}"
