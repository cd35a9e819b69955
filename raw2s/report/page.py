"""The report of a run: one HTML page that needs nothing else, and its figures as files."""

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from raw2s.report.figures import INK, History, draw_all, to_svg
from raw2s.report.outcome import outcome
from raw2s.report.systems import Shown, bounds, fraction, list_systems, notes, pgr_text, stage_title
from raw2s.results import Results


def write_report(results: Results, histories: dict[str, History], examples: list[dict[str, Any]], folder: Path) -> Path:
    """Write `folder/report.html` and `folder/figures/*.svg`; returns the page's path.

    `histories` are the training curves by stage name; `examples` test examples as {"prompt", "gold", "outputs": {stage name: text}}.
    The page loads nothing, and follows the reader's light or dark setting.
    """
    systems = list_systems(results)
    drawings = draw_all(results, {stage_title(stage, systems): history for stage, history in histories.items()})
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    drawn = {drawing.name: to_svg(drawing.figure) for drawing in drawings}
    for name, svg in drawn.items():
        opaque = svg.replace("<svg ", '<svg style="background: white" ', 1)  # the ink is dark whatever the file is shown on
        (folder / "figures" / f"{name}.svg").write_text(opaque, encoding="utf-8")
    environment = Environment(
        loader=PackageLoader("raw2s.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html.j2").render(
        results=results,
        systems=systems,
        outcome=outcome(results),
        notes=notes(results),
        drawings=drawings,
        svg={name: _inline(svg, name) for name, svg in drawn.items()},
        examples=[_example(example, systems) for example in examples],
        fraction=fraction,
        bounds=bounds,
        pgr_text=pgr_text,
    )
    file = folder / "report.html"
    file.write_text(page, encoding="utf-8")
    return file


def _inline(svg: str, name: str) -> str:
    """An SVG file's text as part of a page: no prologue, ids of its own, ink in the page's text colour."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    return svg.replace(INK, "currentColor")


def _example(example: dict[str, Any], systems: list[Shown]) -> dict[str, Any]:
    gold = (example["gold"] or "").strip()
    answers = [(stage_title(stage, systems), text.strip()) for stage, text in example["outputs"].items()]
    return {
        "prompt": example["prompt"],
        "gold": gold,
        "answers": [{"title": title.partition("@")[0], "text": text, "right": text == gold} for title, text in answers],
    }
