"""The figures of the scores and of the performance gap recovered: a line of text and a bar below it for every system."""

import textwrap
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raw2s.record import Interval
from raw2s.report.figures import BLUE, GREY, INK, NARROW, NARROW_STYLE, VERMILION
from raw2s.report.systems import Shown, list_systems
from raw2s.results import Results

ROLES = {"baseline": ("x", GREY), "teacher": ("s", VERMILION), "ceiling": ("D", INK), "student": ("o", BLUE)}
LABEL = 60
"""Characters of a label's line."""
LINE = 0.19
"""Inches of figure height for a line of text, and for a bar."""
PGR_SHOWN = (-2.0, 2.0)
"""Longer bars and intervals are cut: over a gap near 0 they have no end."""


def score_figure(results: Results) -> Figure:
    """Every system's score with its 95 % interval, each seed's score, and the ceiling and the best tested teacher as lines."""
    systems = list_systems(results)
    teacher = max((s for s in systems if s.role == "teacher"), key=lambda s: s.score, default=None)
    ceiling = next((s for s in systems if s.role == "ceiling"), None)
    with mpl.rc_context(NARROW_STYLE):
        figure, axes, places = _labeled([s.label for s in systems])
        for place, system in zip(places, systems, strict=True):
            _score(axes, place, system)
        references = [] if ceiling is None else [(ceiling.score, "ceiling", INK, "--")]
        if teacher is not None:
            references = sorted([*references, (teacher.score, "best teacher", VERMILION, ":")])
        # Names point outwards, so that those of close lines do not meet.
        for (score, text, color, style), side in zip(references, ("right", "left"), strict=False):
            axes.axvline(score, color=color, linestyle=style, linewidth=1, zorder=0)
            axes.text(score, 1.005, text, transform=axes.get_xaxis_transform(), ha=side, va="bottom")
        seeds = "; ticks: single seeds" if len(results.seeds) > 1 else ""
        axes.set_xlabel(f"{results.metric_title} on {results.test_examples:,} test examples\n(bar: 95 % interval{seeds})")
    return figure


def students_figure(named: Sequence[tuple[str, Shown]], metric_title: str) -> Figure:
    """The scores of students of several runs, by the names to be written, with their 95 % intervals and each seed's score."""
    with mpl.rc_context(NARROW_STYLE):
        figure, axes, places = _labeled([name for name, _ in named])
        for place, (_, student) in zip(places, named, strict=True):
            _score(axes, place, student)
        axes.set_xlabel(f"{metric_title} (bar: 95 % interval)")
    return figure


def pgr_figure(results: Results) -> Figure | None:
    """A bar for every student's PGR, with the interval over the test examples and over the seeds too. None where none has a PGR.

    A bar over a gap that is noise is hollow; an interval that both share, as of one seed, is drawn once.
    """
    shown = [s for s in list_systems(results) if s.student is not None and s.student.pgr is not None]
    if not shown:
        return None
    with mpl.rc_context(NARROW_STYLE):
        figure, axes, places = _labeled([s.label for s in shown])
        for place, system in zip(places, shown, strict=True):
            student = system.student
            assert student is not None and student.pgr is not None
            noise = any(name in results.noisy for name in student.learned_from)
            look = {"facecolor": "none", "edgecolor": BLUE, "linestyle": "--"} if noise else {"facecolor": BLUE, "alpha": 0.35}
            axes.barh(place, _shown(student.pgr), height=0.8, **look)
            _interval(axes, place, student.pgr_ci95, INK, 1)
            if student.pgr_ci95_examples != student.pgr_ci95:
                _interval(axes, place, student.pgr_ci95_examples, INK, 3.2)
            axes.plot(_shown(student.pgr), place, "o", color=BLUE, markersize=5)
        for value, text, color, style, side in ((0, "teachers", VERMILION, ":", "right"), (1, "ceiling", INK, "--", "left")):
            axes.axvline(value, color=color, linestyle=style, linewidth=1, zorder=0)
            axes.text(value, 1.005, text, transform=axes.get_xaxis_transform(), ha=side, va="bottom")
        axes.set_xlabel("performance gap recovered (0: the teachers, 1: the ceiling)")
    return figure


def _labeled(labels: Sequence[str]) -> tuple[Figure, Axes, list[float]]:
    """A figure with a label above every row, and the rows' heights."""
    wrapped = [textwrap.wrap(label, LABEL) or [""] for label in labels]
    places, top = [], 0.0
    for lines in wrapped:
        places.append(top + len(lines) + 0.5)
        top += len(lines) + 1.4
    figure = Figure(figsize=(NARROW, 0.9 + LINE * top), layout="constrained")
    axes = figure.subplots()
    for lines, place in zip(wrapped, places, strict=True):
        across = axes.get_yaxis_transform()
        axes.text(0.005, place - 0.55, "\n".join(lines), transform=across, va="bottom", parse_math=False, linespacing=1.05)
    axes.set_ylim(top, 0)
    axes.set_yticks([])
    return figure, axes, places


def _score(axes: Axes, place: float, system: Shown) -> None:
    """Its marker, interval and single seeds."""
    marker, color = ROLES[system.role]
    _interval(axes, place, system.ci95, color, 2)
    if len(system.per_seed) > 1:
        axes.plot(system.per_seed, [place] * len(system.per_seed), "|", color=color, markersize=9, markeredgewidth=1)
    axes.plot(system.score, place, marker, color=color, markersize=6.5)


def _interval(axes: Axes, place: float, ci95: Interval, color: str, width: float) -> None:
    """None where an end is undefined."""
    low, high = ci95
    if low is not None and high is not None:
        axes.plot([_shown(low), _shown(high)], [place, place], color=color, linewidth=width, solid_capstyle="butt")


def _shown(value: float) -> float:
    low, high = PGR_SHOWN
    return min(max(value, low), high)
