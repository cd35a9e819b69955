"""What the report shows of the students' doubt: rows for its tables, reliability and risk-coverage as figures, and how to read them."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raw2s.doubt_results import Calibration, Doubt
from raw2s.report.figures import BLUE, GREEN, GREY, INK, MANY_PANELS, STYLE, VERMILION, WIDTH, Drawing
from raw2s.report.systems import list_systems
from raw2s.results import Results, Verdict

SECTION = "Doubt"
COLORS = (BLUE, VERMILION, GREEN, INK)
STYLES = ("-", "--", ":", "-.")
NOTES = [
    "An answer is an error unless the metric counts it as gold itself. AUROC: how likely an error is more doubtful than a right answer; "
    "0.5 knows nothing. AURC: the share of errors among the most certain answers, over all shares kept; lower is better.",
    "Vacuity, K/S, is the share of the prior in an evidential student's counts. It does not say what more data would teach, and it moves "
    "with the number of classes or tokens K: compare it within one vocabulary only.",
]


ANSWERS: dict[Verdict, str] = {"as the paper": "yes", "the reverse": "no, the reverse", "cannot be told": "cannot be told"}
"""To whether a statement of `Results.doubt_claims` holds."""


@dataclass(frozen=True, kw_only=True)
class Doubted:
    """A student, or an entry's students of all seeds as an ensemble."""

    label: str
    score: float
    doubt: Sequence[Doubt]
    calibration: Calibration | None


def list_doubted(results: Results) -> list[Doubted]:
    """Those that were asked for their doubt, an ensemble after its members."""
    found = []
    for system in list_systems(results):
        student = system.student
        if student is None or not student.doubt:
            continue
        found.append(Doubted(label=system.label, score=student.score, doubt=student.doubt, calibration=student.calibration))
        if (own := student.ensemble) is not None:
            label = f"{system.label}, ensemble of {own.members}"
            found.append(Doubted(label=label, score=own.score, doubt=own.doubt, calibration=own.calibration))
    return found


def draw_doubt(results: Results) -> list[Drawing]:
    """The figures of doubt; none where it was not asked for."""
    doubted = list_doubted(results)
    if not doubted:
        return []
    drawings = [
        Drawing(
            name="risk",
            section=SECTION,
            label="Share of errors against the share of answers kept, a panel per student; the tables above hold the areas",
            caption="Risk and coverage: the share of errors among the most certain answers, by every measure of doubt. A good measure "
            "falls to the left.",
            figure=risk_figure(doubted),
            folded=len(doubted) > MANY_PANELS,
        )
    ]
    if any(own.calibration is not None for own in doubted):
        drawings.append(
            Drawing(
                name="reliability",
                section=SECTION,
                label="Share of right answers against the probability of the answer, a panel per student",
                caption="Reliability: bins of as many answers each. Below the diagonal the student is surer than it is right.",
                figure=reliability_figure(doubted),
                folded=len(doubted) > MANY_PANELS,
            )
        )
    return drawings


def risk_figure(doubted: Sequence[Doubted]) -> Figure:
    """Risk against coverage, a panel a student and a line a measure."""
    names = list(dict.fromkeys(record.measure for own in doubted for record in own.doubt))
    with mpl.rc_context(STYLE):
        figure, panels = _panels(len(doubted))
        for axes, own in zip(panels, doubted, strict=False):
            for record in own.doubt:
                place, count = names.index(record.measure), len(record.risk)
                color, style = COLORS[place % 4], STYLES[(place + place // 4) % 4]
                coverage = [(k + 1) / count for k in range(count)]
                axes.plot(coverage, record.risk, style, color=color, label=record.measure.replace("_", " "))
            axes.set_title(textwrap.fill(own.label, 30), loc="left", parse_math=False)
            axes.set_ylim(bottom=0)
        figure.supxlabel("share of answers kept, the most certain first")
        figure.supylabel("share of errors")
        shown = {str(line.get_label()): line for axes in panels for line in axes.get_lines()}
        figure.legend(shown.values(), shown.keys(), loc="outside upper right", ncols=3)
    return figure


def reliability_figure(doubted: Sequence[Doubted]) -> Figure:
    """Accuracy against confidence, a panel a student."""
    known = [(own.label, own.calibration) for own in doubted if own.calibration is not None]
    with mpl.rc_context(STYLE):
        figure, panels = _panels(len(known))
        for axes, (label, calibration) in zip(panels, known, strict=False):
            axes.plot([0, 1], [0, 1], ":", color=GREY)
            bins = calibration.reliability
            axes.plot([one.confidence for one in bins], [one.accuracy for one in bins], "o-", color=BLUE, markersize=3.5)
            axes.set_title(textwrap.fill(label, 30), loc="left", parse_math=False)
            axes.set_xlim(0, 1)
            axes.set_ylim(0, 1)
        figure.supxlabel("probability of the answer")
        figure.supylabel("share that is right")
    return figure


def _panels(count: int) -> tuple[Figure, Sequence[Axes]]:
    """Three a row, those left over removed."""
    rows = -(-count // 3)
    figure = Figure(figsize=(WIDTH, 0.8 + 2.1 * rows), layout="constrained")
    panels = list(figure.subplots(rows, 3, squeeze=False).ravel())
    for axes in panels[count:]:
        axes.remove()
    return figure, panels[:count]
