"""The figures of a sweep, in the style of a run's: a point is a trial, its shape says how it ended."""

import textwrap
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from matplotlib.ticker import MaxNLocator

from raw2s.report.figures import BLUE, GREY, INK, STYLE, VERMILION, WIDTH
from raw2s.tuning.axes import Axis
from raw2s.tuning.trials import Trial, ranked

SCORE = "score on devel"
MARKERS = {"finished": "o", "stopped": "v"}
LOW_TO_HIGH = LinearSegmentedColormap.from_list("low to high", [BLUE, GREY, VERMILION], N=9)
"""Seen on white and on black, and by the color-blind."""
CORNERS = ((0.0, 0.0), (1.0, 0.0), (0.5, 0.75**0.5))
"""Of a triangle with sides of 1, as its three weights."""


def course_figure(trials: Sequence[Trial]) -> Figure:
    """The trials that count in the order in which they started, and the best so far with its 95 % interval."""
    bests = [ranked(trials[: i + 1])[0] for i in range(len(trials))]
    numbers, best = [trial.number for trial in trials], [_figure(trial) for trial in bests]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
        axes = figure.subplots()
        axes.step(numbers, best, color=BLUE, where="post", label="best so far")
        ends = [trial.ci95 for trial in bests]
        if all(low is not None for low, _ in ends):
            lows, highs = zip(*ends, strict=True)
            axes.fill_between(numbers, lows, highs, step="post", color=BLUE, alpha=0.2, linewidth=0, label="its 95 % interval")
        _points(axes, trials, [float(number) for number in numbers])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("trial")
        axes.set_ylabel(SCORE)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=5)
    return figure


def knob_figure(trials: Sequence[Trial], shown: Sequence[Axis]) -> Figure:
    """The score against every axis, a panel each; bars are 95 % intervals, the best trial has a ring."""
    rows = -(-len(shown) // 3)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.5 + 2.1 * rows), layout="constrained")
        panels = figure.subplots(rows, 3, squeeze=False, sharey=True).ravel()
        for axes, axis in zip(panels, shown, strict=False):
            places = [axis.read(trial) for trial in trials]
            for trial, x in zip(trials, places, strict=True):
                low, high = trial.ci95
                if low is not None and high is not None:
                    axes.plot([x, x], [low, high], color=GREY, linewidth=0.8, alpha=0.6, zorder=1)
            _points(axes, trials, places)
            if axis.log:
                axes.set_xscale("log")
            if axis.options:
                axes.set_xticks(range(len(axis.options)), [_wrapped(option, 12) for option in axis.options])
                axes.set_xlim(-0.5, len(axis.options) - 0.5)
            axes.set_title(_key(axis.title, 30), loc="left")
        for axes in panels[len(shown) :]:
            axes.remove()
        figure.supylabel(SCORE)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return figure


def importance_figure(shares: dict[str, float]) -> Figure:
    """The share of the variance that each knob explains alone, as bars."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.7 + 0.35 * len(shares)), layout="constrained")
        axes = figure.subplots()
        rows = range(len(shares))
        axes.barh(rows, list(shares.values()), height=0.6, color=BLUE)
        for row, share in zip(rows, shares.values(), strict=True):
            axes.text(share, row, f" {share:.2f}", va="center")
        axes.set_yticks(rows, [_key(key, 40) for key in shares])
        axes.set_ylim(len(shares) - 0.4, -0.6)
        axes.set_xlim(0, 1.08)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("share of the score's variance over trials that the key explains alone")
    return figure


def ternary_figure(trials: Sequence[Trial], weights: Sequence[Axis], teachers: Sequence[str]) -> Figure:
    """Three weights as a place in a triangle: at a corner its teacher has all of the weight, in the middle each a third."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
        axes = figure.subplots()
        axes.add_patch(Polygon(CORNERS, closed=True, fill=False, edgecolor=GREY, linewidth=1))
        for fifths in range(1, 5):
            for i in range(3):
                ends = [[0.0] * 3, [0.0] * 3]
                for end, other in zip(ends, (i - 1, i - 2), strict=True):
                    end[i], end[other] = fifths / 5, 1 - fifths / 5
                axes.plot(*zip(*map(_in_triangle, ends), strict=True), color=GREY, alpha=0.25, linewidth=0.8)
        for (x, y), name, side, at in zip(CORNERS, teachers, ("right", "left", "center"), ("top", "top", "bottom"), strict=True):
            axes.annotate(_wrapped(name, 30), (x, y), (0, 4 if y else -4), textcoords="offset points", ha=side, va=at)
        scale = _scale(trials)
        for trial in reversed(ranked(trials)):
            x, y = _in_triangle([weight.read(trial) for weight in weights])
            size, color = 25 + 60 * scale(_figure(trial)), LOW_TO_HIGH(scale(_figure(trial)))
            axes.scatter(x, y, s=size, color=[color], marker=MARKERS[trial.status], edgecolors=INK, linewidths=0.5, zorder=3)
        _ring(axes, *_in_triangle([weight.read(ranked(trials)[0]) for weight in weights]), size=18)
        axes.set_aspect("equal")
        axes.set_axis_off()
        axes.margins(0.12)
        figure.colorbar(ScalarMappable(scale, LOW_TO_HIGH), ax=axes, label=SCORE, shrink=0.7)
    return figure


def parallel_figure(trials: Sequence[Trial], shown: Sequence[Axis]) -> Figure:
    """A line a trial through its place on every axis, and on the last one its score."""
    scale = _scale(trials)
    lowest, highest = float(scale.vmin or 0.0), float(scale.vmax or 0.0)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        axes = figure.subplots()
        across = range(len(shown) + 1)
        order = ranked(trials)
        for trial in reversed(order):
            share = scale(_figure(trial))
            places = [*(axis.place(trial) for axis in shown), share]
            width, style = 3 if trial is order[0] else 1, "--" if trial.status == "stopped" else "-"
            axes.plot(across, places, style, color=LOW_TO_HIGH(share), linewidth=width, alpha=0.9, zorder=2 + share)
        ends = [*(axis.ends for axis in shown), (f"{lowest:.3f}", f"{highest:.3f}")]
        width = max(9, 100 // len(across))
        for x, (low, high) in zip(across, ends, strict=True):
            axes.plot([x, x], [0, 1], color=GREY, linewidth=1, zorder=1)
            for y, text, at in ((-0.03, low, "top"), (1.03, high, "bottom")):
                axes.text(x, y, _wrapped(text, width), ha="center", va=at, fontsize=8)
        axes.set_xticks(across, [_key(title, width) for title in (*(axis.title for axis in shown), SCORE)])
        axes.set_ylim(-0.2, 1.2)
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.tick_params(axis="x", length=0)
        axes.grid(visible=False)
    return figure


def _points(axes: Axes, trials: Sequence[Trial], places: Sequence[float]) -> None:
    """The trials' scores at their places, finished and stopped ones apart, the best with a ring."""
    for status, marker in MARKERS.items():
        some = [(x, _figure(trial)) for x, trial in zip(places, trials, strict=True) if trial.status == status]
        if some:
            filled = BLUE if status == "finished" else "none"
            axes.plot(*zip(*some, strict=True), marker, color=BLUE, markerfacecolor=filled, markersize=5, label=status)
    best = ranked(trials)[0]
    _ring(axes, places[list(trials).index(best)], _figure(best), size=11)


def _ring(axes: Axes, x: float, y: float, *, size: float) -> None:
    axes.plot(x, y, "o", color="none", markeredgecolor=VERMILION, markeredgewidth=1.5, markersize=size, label="best", zorder=4)


def _figure(trial: Trial) -> float:
    assert trial.figure is not None, "only trials that count are shown"
    return trial.figure


def _scale(trials: Sequence[Trial]) -> Normalize:
    """From the lowest figure, 0, to the highest, 1; equal figures are all the lowest."""
    figures = [_figure(trial) for trial in trials]
    return Normalize(min(figures), max(figures))


def _in_triangle(weights: Sequence[float]) -> tuple[float, float]:
    x, y = (sum(w * corner[i] for w, corner in zip(weights, CORNERS, strict=True)) for i in range(2))
    return x, y


def _wrapped(text: str, width: int) -> str:
    """Some words of a config on at most three lines; a dollar sign is one, and begins no formula."""
    return "\n".join(textwrap.wrap(text, width, max_lines=3, placeholder=" …")).replace("$", r"\$")


def _key(key: str, width: int) -> str:
    """A key broken at its dots and underscores."""
    return _wrapped(key.replace(".", ". ").replace("_", "_ "), width).replace(". ", ".").replace("_ ", "_")
