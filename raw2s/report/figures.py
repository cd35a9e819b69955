"""What all figures of a report share: their look, what the page says of one, and its SVG text. Okabe-Ito colors, and never color alone."""

import io
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

History = list[dict[str, float]]
"""The points of one stage's training curve, as `raw2s.training.loop` keeps them."""

INK, GREY = "#222222", "#808080"
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
WIDTH = 7.3
"""Inches. Shown 700 px wide, a point of text is 1.3 px."""
NARROW = 5.2
"""Inches. A telephone shows such a figure whole, at 0.7 of its size."""
MANY_PANELS = 12
"""A figure of more is folded."""
STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "figure.labelsize": 9,
    "xtick.labelsize": 8.5, "ytick.labelsize": 8.5, "legend.fontsize": 8.5, "legend.frameon": False, "text.color": INK,
    "axes.labelcolor": INK, "axes.titlecolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.edgecolor": GREY,
    "axes.facecolor": "none", "figure.facecolor": "none", "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": GREY, "grid.alpha": 0.25, "lines.linewidth": 1.3, "svg.fonttype": "none", "svg.hashsalt": "raw2s",
}  # fmt: skip
"""Text stays text in the SVG, for readers and search; the same data gives the same file."""
NARROW_STYLE = STYLE | {key: 10.5 for key, size in STYLE.items() if key.endswith("size")}
"""Of a figure that a telephone makes smaller."""


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
    folded: bool = False
    """Whether the reader opens it: tall ones."""


def to_svg(figure: Figure) -> str:
    """The figure as SVG text, transparent and without a date."""
    with mpl.rc_context(STYLE), io.StringIO() as text:
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        return text.getvalue()
