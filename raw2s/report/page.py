"""The report of a run: one HTML page that needs nothing else, and its figures as files."""

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from raw2s.report.figures import INK, History, edl_figure, score_figure, to_svg, training_figure
from raw2s.report.outcome import outcome
from raw2s.report.systems import (
    Results,
    System,
    bounds,
    fraction,
    list_systems,
    metric_name,
    noisy_teachers,
    notes,
    pgr_text,
    stage_title,
)


def write_report(results: Results, histories: dict[str, History], examples: list[dict[str, Any]], folder: Path) -> Path:
    """Write `folder/report.html` and `folder/figures/*.svg`; returns the page's path.

    `results` is the content of results.json; `histories` the training curves by stage name; `examples` test utterances as
    {"prompt", "gold", "outputs": {stage name: text}}. The page loads nothing, and follows the reader's light or dark setting.
    """
    systems = list_systems(results)
    noisy = noisy_teachers(results)
    titled = {stage_title(stage, systems): history for stage, history in histories.items()}
    figures = {"scores": score_figure(results)}
    if titled:
        figures["training"] = training_figure(titled)
    if edl := edl_figure(titled):
        figures["edl"] = edl
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    drawn = {name: to_svg(figure) for name, figure in figures.items()}
    for name, svg in drawn.items():
        opaque = svg.replace("<svg ", '<svg style="background: white" ', 1)  # the ink is dark whatever the file is shown on
        (folder / "figures" / f"{name}.svg").write_text(opaque, encoding="utf-8")
    environment = Environment(
        loader=PackageLoader("raw2s.report", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    page = environment.get_template("page.html.j2").render(
        results=results, systems=systems, noisy=noisy, metric=metric_name(results),
        outcome=outcome(results), notes=notes(results),
        figures={name: _inline(svg, name) for name, svg in drawn.items()},
        examples=[_example(example, systems) for example in examples],
        fraction=fraction, bounds=bounds, pgr_text=pgr_text,
    )  # fmt: skip
    file = folder / "report.html"
    file.write_text(page, encoding="utf-8")
    return file


def _inline(svg: str, name: str) -> str:
    """An SVG file's text as part of a page: no prologue, ids of its own, ink in the page's text colour."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    return svg.replace(INK, "currentColor")


def _example(example: dict[str, Any], systems: list[System]) -> dict[str, Any]:
    gold = example["gold"].strip()
    answers = [(stage_title(stage, systems), text.strip()) for stage, text in example["outputs"].items()]
    return {
        "prompt": example["prompt"],
        "gold": gold,
        "answers": [{"title": title.partition("@")[0], "text": text, "right": text == gold} for title, text in answers],
    }
