"""A template and drawings made one HTML page that needs nothing else, and its figures as files."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from raw2s.report.figures import BLUE, GREEN, INK, VERMILION, Drawing, to_svg

PAGE_COLORS = {INK: "currentColor", BLUE: "var(--blue)", VERMILION: "var(--vermilion)", GREEN: "var(--green)"}
"""Of figures in a page, which are lighter on a dark one."""
SHRUNK, GROWN = 0.7, 1.15
"""Of its own width, how narrow and how wide a page shows a figure; on a narrower screen its box scrolls."""


def write_page(template: str, folder: Path, drawings: Sequence[Drawing], **values: Any) -> Path:
    """Write `folder/report.html` and `folder/figures/*.svg`; returns the page's path.

    `template` is a file's path in this package; it is given the values, `drawings`, and their `svg` by name. The page loads nothing,
    and follows the reader's light or dark setting.
    """
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    drawn = {drawing.name: to_svg(drawing.figure) for drawing in drawings}
    for name, svg in drawn.items():
        opaque = svg.replace("<svg ", '<svg style="background: white" ', 1)  # the ink is dark whatever the file is shown on
        (folder / "figures" / f"{name}.svg").write_text(opaque, encoding="utf-8")
    environment = Environment(
        loader=PackageLoader("raw2s", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    svg_of = {name: _inline(svg, name) for name, svg in drawn.items()}
    file = folder / "report.html"
    page = environment.get_template(template).render(drawings=drawings, svg=svg_of, **values)
    file.write_text(page, encoding="utf-8")
    return file


def _inline(svg: str, name: str) -> str:
    """An SVG file's text as part of a page: no prologue, ids of its own, colors and width of the page's."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    for color, own in PAGE_COLORS.items():
        svg = svg.replace(color.lower(), own)
    (points,) = re.findall(r'^<svg [^>]*?width="([\d.]+)pt"', svg)
    pixels = float(points) * 96 / 72
    return svg.replace("<svg ", f'<svg style="min-width: {SHRUNK * pixels:.0f}px; max-width: {GROWN * pixels:.0f}px" ', 1)
