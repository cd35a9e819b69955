"""The report of a run."""

from pathlib import Path
from typing import Any

from raw2s.report.drawings import draw_all
from raw2s.report.figures import History
from raw2s.report.outcome import outcome
from raw2s.report.rendering import write_page
from raw2s.report.systems import (
    Shown,
    bounds,
    list_systems,
    notes,
    p_text,
    pgr_text,
    score_text,
    signed,
    stage_title,
)
from raw2s.results import Results


def write_report(results: Results, histories: dict[str, History], examples: list[dict[str, Any]], folder: Path) -> Path:
    """Write `folder/report.html` and `folder/figures/*.svg`; returns the page's path.

    `histories` are the training curves by stage name; `examples` test examples as {"prompt", "gold", "outputs": {stage name: text}}.
    """
    systems = list_systems(results)
    drawings = draw_all(results, {stage_title(stage, systems): history for stage, history in histories.items()})
    return write_page(
        "report/page.html.j2",
        folder,
        drawings,
        results=results,
        systems=systems,
        outcome=outcome(results),
        notes=notes(results),
        examples=[_example(example, systems) for example in examples],
        bounds=bounds,
        score_text=score_text,
        pgr_text=pgr_text,
        signed=signed,
        p_text=p_text,
        labels={system.stage: system.label for system in systems},
    )


def _example(example: dict[str, Any], systems: list[Shown]) -> dict[str, Any]:
    gold = (example["gold"] or "").strip()
    answers = [(stage_title(stage, systems), text.strip()) for stage, text in example["outputs"].items()]
    return {
        "prompt": example["prompt"],
        "gold": gold,
        "answers": [{"title": title.partition("@")[0], "text": text, "right": text == gold} for title, text in answers],
    }
