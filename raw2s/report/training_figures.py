"""The training curves of a run: smoothed on a logarithmic axis, the logged values faint behind, seeds over each other."""

import math
import textwrap

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter
from numpy.typing import NDArray

from raw2s.report.figures import BLUE, GREEN, NARROW, NARROW_STYLE, STYLE, VERMILION, WIDTH, History

SMOOTHED = 20
"""A running median takes in this part, one in so many, of a curve's points."""
DRAWN = 120
"""Points of one line, at most: with many models and seeds the page stays light."""


def training_figure(histories: dict[str, History]) -> Figure:
    """Train and validation loss against the step, a panel per trained model; a name is `model` or `model@seed`."""
    with mpl.rc_context(NARROW_STYLE):
        models = by_model(histories)
        rows = -(-len(models) // 2)
        figure = Figure(figsize=(NARROW, 0.7 + 1.9 * rows), layout="constrained")
        panels = figure.subplots(rows, 2, squeeze=False).ravel()
        for axes, (model, seeds) in zip(panels, models.items(), strict=False):
            _faint(axes, seeds[0], "loss")
            for history in seeds:
                _curve(axes, history, "loss", BLUE, "-", "train", smooth=True)
                _curve(axes, history, "validation_loss", VERMILION, "o--", "validation (ground truth)")
            _make_logarithmic(axes)
            axes.set_title(textwrap.fill(model, 26), loc="left", parse_math=False)
        for axes in panels[len(models) :]:
            axes.remove()
        figure.supxlabel("optimizer step")
        figure.supylabel("loss")
        curves = [line for axes in panels[: len(models)] for line in axes.get_lines() if len(line.get_xdata())]
        shown = {label: line for line in curves if not (label := str(line.get_label())).startswith("_")}
        figure.legend(shown.values(), shown.keys(), loc="outside upper right", ncols=2)
    return figure


def edl_figure(histories: dict[str, History]) -> Figure | None:
    """The two terms of the evidential loss, their ratio as weighted, and the weights; a row per EDL student. None without one."""
    models = {model: seeds for model, seeds in by_model(histories).items() if any("kl" in point for point in seeds[0])}
    if not models:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.5 + 2.0 * len(models)), layout="constrained")
        panels = figure.subplots(len(models), 3, squeeze=False)
        for (terms, ratio, weights), (model, seeds) in zip(panels, models.items(), strict=True):
            points = [_shares(history) for history in seeds]
            for history in points:
                _curve(terms, history, "nll", BLUE, "-", "NLL", smooth=True)
                _curve(terms, history, "kl", VERMILION, "--", "KL", smooth=True)
                _curve(ratio, history, "ratio", GREEN, "-", "", smooth=True)
                _curve(weights, history, "gamma_share", BLUE, "-", "γ")
                _curve(weights, history, "kl_weight_share", VERMILION, "--", "λ")
            for axes in (terms, ratio):
                axes.set_yscale("log", nonpositive="mask")
            terms.set_title(model, loc="left", parse_math=False)
            terms.set_ylabel("NLL, KL (log scale)")
            ratio.set_ylabel("λ·KL / NLL (log scale)")
            weights.set_ylabel("share of the largest")
            gamma, kl_weight = (max(p[key] for p in points[0]) for key in ("gamma", "kl_weight"))
            weights.set_title(f"γ ≤ {gamma:.3g}, λ ≤ {kl_weight:.3g}", loc="right")
            weights.set_ylim(-0.05, 1.05)
        figure.supxlabel("optimizer step")
        for axes in panels[0, [0, 2]]:
            handles, labels = axes.get_legend_handles_labels()
            axes.legend(handles[:2], labels[:2])
    return figure


def by_model(histories: dict[str, History]) -> dict[str, list[History]]:
    """The seeds of each model, in the order of the histories."""
    models: dict[str, list[History]] = {}
    for name, history in histories.items():
        models.setdefault(name.partition("@")[0], []).append(history)
    return models


def smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The running median of (points,) over a twentieth of them, centered, the ends mirrored; of fewer than 40 points as they are."""
    from scipy.ndimage import median_filter  # only a report needs it  # noqa: PLC0415

    return np.asarray(median_filter(values, size=len(values) // SMOOTHED | 1, mode="reflect")) if len(values) else values


def _shares(history: History) -> History:
    """The points with a KL term; with the terms' weighted ratio, and γ and λ as shares of their largest."""
    points = [point for point in history if "kl" in point]
    largest = {key: max(point[key] for point in points) or 1.0 for key in ("gamma", "kl_weight")}
    return [
        point
        | {f"{key}_share": point[key] / largest[key] for key in largest}
        | {"ratio": point["kl_weight"] * point["kl"] / point["nll"] if point["nll"] else math.nan}
        for point in points
    ]


def _curve(axes: Axes, history: History, key: str, color: str, style: str, label: str, *, smooth: bool = False) -> None:
    """`key` against the step, over the points that have it; seeds lie over each other, slightly transparent."""
    steps, values = _points(history, key)
    line = smoothed(values) if smooth else values
    axes.plot(_thinned(steps), _thinned(line), style, color=color, markersize=3.5, alpha=0.8, label=label)


def _faint(axes: Axes, history: History, key: str) -> None:
    """The values as they were logged, of one seed: those of all would be a cloud."""
    steps, values = _points(history, key)
    axes.plot(_thinned(steps), _thinned(values), color=BLUE, linewidth=0.7, alpha=0.3)


def _points(history: History, key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    points = [(point["step"], point[key]) for point in history if not math.isnan(point.get(key, math.nan))]
    steps, values = np.array(points, dtype=np.float64).reshape(-1, 2).T
    return steps, values


def _thinned(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every so many of them, the last one always."""
    return values[:: -max(1, -(-len(values) // DRAWN))][::-1]


def _make_logarithmic(axes: Axes) -> None:
    """Where all values are above 0. Ticks are plain numbers: powers of ten say nothing within a decade."""
    drawn = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.get_lines()])
    if not drawn.size or drawn.min() <= 0:
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(MaxNLocator(3) if drawn.max() < 4 * drawn.min() else LogLocator(subs=(1, 2, 5), numticks=12))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
