"""The figures of a report, as matplotlib figures and as SVG text. Okabe-Ito colours, and never colour alone."""

import io
import math
import textwrap
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raw2s.report.systems import list_systems
from raw2s.results import Results

History = list[dict[str, float]]
"""The points of one stage's training curve, as `raw2s.training.loop` keeps them."""

INK, GREY = "#222222", "#808080"
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
WIDTH = 7.3
"""Inches. Shown 700 px wide, a point of text is 1.3 px."""
STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "figure.labelsize": 9,
    "xtick.labelsize": 8.5, "ytick.labelsize": 8.5, "legend.fontsize": 8.5, "legend.frameon": False, "text.color": INK,
    "axes.labelcolor": INK, "axes.titlecolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.edgecolor": GREY,
    "axes.facecolor": "none", "figure.facecolor": "none", "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": GREY, "grid.alpha": 0.25, "lines.linewidth": 1.3, "svg.fonttype": "none", "svg.hashsalt": "raw2s",
}  # fmt: skip
"""Text stays text in the SVG, for readers and search; the same data gives the same file."""
SERIES = [(BLUE, "o"), (VERMILION, "s"), (GREEN, "D"), (INK, "^"), (GREY, "v")]
ROLES = {"baseline": ("x", GREY), "teacher": ("s", VERMILION), "ceiling": ("D", INK), "student": ("o", BLUE)}


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure with what the page says of it."""

    name: str
    """Of its file."""
    section: str
    """The heading it stands under."""
    label: str
    """For those who do not see it."""
    caption: str
    figure: Figure


def draw_all(results: Results, histories: dict[str, History]) -> list[Drawing]:
    """Every figure that these results have, in the page's order; `histories` by the models' titles."""
    drawings = [
        Drawing(
            name="scores",
            section="Scores",
            label="Score of every model with its 95 percent interval; the table above holds the same numbers",
            caption="Scores of all models. Squares: teachers; diamond: the ceiling, which is the student trained on ground truth; "
            "circles: students; cross: the best constant answer. A student between the dotted and the dashed line recovered part "
            "of the gap to the best teacher.",
            figure=score_figure(results),
        )
    ]
    if results.by_teachers:
        drawings.append(
            Drawing(
                name="teachers",
                section="Teachers",
                label="Score of the students against the number of teachers; the table above holds the means",
                caption="Each dot is a student; lines join the means of a method's students, with their 95 % interval.",
                figure=teachers_figure(results),
            )
        )
    if histories:
        drawings.append(
            Drawing(
                name="training",
                section="Training",
                label="Loss against the optimizer step, a panel per trained model",
                caption="Train is the loss that the stage minimises; validation, where measured, is cross entropy on ground truth. "
                "Where the stage's loss is another one (EDL, cDPO), compare the shapes and not the heights. Seeds lie over each other.",
                figure=training_figure(histories),
            )
        )
    if edl := edl_figure(histories):
        drawings.append(
            Drawing(
                name="edl",
                section="Training",
                label="Terms of the evidential loss against the optimizer step, a row per student",
                caption="The evidential students. Left: the two terms of the loss (Eq. 3, 4), not weighted. Middle: what the "
                "regulariser weighs in the loss. Right: the auxiliary weight γ (Eq. 5) and the regulariser's weight λ, each as a share "
                "of its largest value.",
                figure=edl,
            )
        )
    return drawings


def score_figure(results: Results) -> Figure:
    """Every system's score with its 95 % interval, each seed's score, and the ceiling and the best tested teacher as lines."""
    systems = list_systems(results)
    teacher = max((s for s in systems if s.role == "teacher"), key=lambda s: s.score, default=None)
    ceiling = next((s for s in systems if s.role == "ceiling"), None)
    labels = ["\n".join(textwrap.wrap(s.name, 36) + ([s.student.settings] if s.student else [])) for s in systems]
    lines = sum(1.4 + label.count("\n") for label in labels)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.1 + 0.17 * lines), layout="constrained")
        axes = figure.subplots()
        for row, system in enumerate(systems):
            marker, color = ROLES[system.role]
            ends = [end for end in system.ci95 if end is not None]
            if len(ends) == 2:
                axes.plot(ends, [row, row], color=color, linewidth=2, solid_capstyle="butt")
            if len(system.per_seed) > 1:
                axes.plot(system.per_seed, [row] * len(system.per_seed), "|", color=color, markersize=9, markeredgewidth=1)
            axes.plot(system.score, row, marker, color=color, markersize=6.5)
        references = [] if ceiling is None else [(ceiling.score, "ceiling", INK, "--")]
        if teacher is not None:
            references = sorted([*references, (teacher.score, "best teacher", VERMILION, ":")])
        # Names point outwards, so that those of close lines do not meet.
        for (score, text, color, style), side in zip(references, ("right", "left"), strict=False):
            axes.axvline(score, color=color, linestyle=style, linewidth=1, zorder=0)
            axes.text(score, 1.01, text, transform=axes.get_xaxis_transform(), ha=side, va="bottom")
        axes.set_yticks(range(len(systems)), labels)
        axes.set_ylim(len(systems) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        seeds = "; ticks: single seeds" if len(results.seeds) > 1 else ""
        axes.set_xlabel(f"{results.metric_title} on {results.test_examples:,} test examples (bar: 95 % interval{seeds})")
    return figure


def teachers_figure(results: Results) -> Figure:
    """Every student's score at the number of its teachers, and the means of a method's students joined by a line."""
    scores = {student.stage: student.score for student in results.students}
    methods = list(dict.fromkeys(some.label for some in results.by_teachers))
    beside: dict[int, list[str]] = {}
    for some in results.by_teachers:
        beside.setdefault(some.teachers, []).append(some.label)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.6 + 0.2 * len(methods)), layout="constrained")
        axes = figure.subplots()
        for place, method in enumerate(methods):
            own = [some for some in results.by_teachers if some.label == method]
            color, marker = SERIES[place % len(SERIES)]
            at = [some.teachers + 0.08 * beside[some.teachers].index(method) for some in own]
            for x, some in zip(at, own, strict=True):
                dots = [scores[stage] for stage in some.stages] if len(some.stages) > 1 else []
                axes.plot([x - 0.05] * len(dots), dots, marker, color=color, markersize=4, alpha=0.45, markeredgewidth=0)
                ends = [end for end in some.ci95 if end is not None]
                axes.plot([x] * len(ends), ends, color=color, linewidth=2, solid_capstyle="butt")
            axes.plot(at, [some.score for some in own], f"{marker}-", color=color, markersize=7, label=method)
        axes.set_xticks(sorted({some.teachers for some in results.by_teachers}))
        axes.set_xlabel("teachers that a student learned from")
        axes.set_ylabel(results.metric_title)
        figure.legend(loc="outside upper left")
    return figure


def training_figure(histories: dict[str, History]) -> Figure:
    """Train and validation loss against the step, a panel per trained model; a name is `model` or `model@seed`."""
    with mpl.rc_context(STYLE):
        models = _by_model(histories)
        rows = -(-len(models) // 3)
        figure = Figure(figsize=(WIDTH, 0.5 + 1.9 * rows), layout="constrained")
        panels = figure.subplots(rows, 3, squeeze=False).ravel()
        for axes, (model, seeds) in zip(panels, models.items(), strict=False):
            for history in seeds:
                _curve(axes, history, "loss", BLUE, "-", "train")
                _curve(axes, history, "validation_loss", VERMILION, "o--", "validation (ground truth)")
            axes.set_title(textwrap.fill(model, 30), loc="left")
        for axes in panels[len(models) :]:
            axes.remove()
        figure.supxlabel("optimizer step")
        figure.supylabel("loss")
        curves = [line for axes in panels[: len(models)] for line in axes.get_lines() if len(line.get_xdata())]
        shown = {str(line.get_label()): line for line in curves}
        figure.legend(shown.values(), shown.keys(), loc="outside upper right", ncols=2)
    return figure


def edl_figure(histories: dict[str, History]) -> Figure | None:
    """The two terms of the evidential loss, their ratio as weighted, and the weights; a row per EDL student. None without one."""
    models = {model: seeds for model, seeds in _by_model(histories).items() if any("kl" in point for point in seeds[0])}
    if not models:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.5 + 2.0 * len(models)), layout="constrained")
        panels = figure.subplots(len(models), 3, squeeze=False)
        for (terms, ratio, weights), (model, seeds) in zip(panels, models.items(), strict=True):
            points = [_shares(history) for history in seeds]
            for history in points:
                _curve(terms, history, "nll", BLUE, "-", "NLL")
                _curve(terms, history, "kl", VERMILION, "--", "KL")
                _curve(ratio, history, "ratio", GREEN, "-", "")
                _curve(weights, history, "gamma_share", BLUE, "-", "γ")
                _curve(weights, history, "kl_weight_share", VERMILION, "--", "λ")
            for axes in (terms, ratio):
                axes.set_yscale("log", nonpositive="mask")
            terms.set_title(model, loc="left")
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


def to_svg(figure: Figure) -> str:
    """The figure as SVG text, transparent and without a date."""
    with mpl.rc_context(STYLE), io.StringIO() as text:
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        return text.getvalue()


def _by_model(histories: dict[str, History]) -> dict[str, list[History]]:
    models: dict[str, list[History]] = {}
    for name, history in histories.items():
        models.setdefault(name.partition("@")[0], []).append(history)
    return models


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


def _curve(axes: Axes, history: History, key: str, color: str, style: str, label: str) -> None:
    """`key` against the step, over the points that have it; seeds lie over each other, slightly transparent."""
    points = [point for point in history if key in point]
    steps, values = [point["step"] for point in points], [point[key] for point in points]
    axes.plot(steps, values, style, color=color, markersize=3.5, alpha=0.8, label=label)
