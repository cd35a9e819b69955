"""The report of a run."""

from collections.abc import Sequence
from pathlib import Path

from raw2s.report.costs import costs_of, duration
from raw2s.report.doubt import ANSWERS, NOTES, list_doubted
from raw2s.report.drawings import draw_all
from raw2s.report.examples import ExampleGroup, parts_of
from raw2s.report.figures import History
from raw2s.report.outcome import outcome
from raw2s.report.paper_layout import laid_out
from raw2s.report.rendering import write_page
from raw2s.report.systems import (
    BY_TEACHERS,
    bounds,
    fraction,
    list_systems,
    notes,
    p_text,
    pgr_text,
    score_text,
    signed,
    stage_title,
)
from raw2s.results import Results


def write_report(results: Results, histories: dict[str, History], examples: Sequence[ExampleGroup], folder: Path) -> Path:
    """Write `folder/report.html` and `folder/figures/*.svg`; returns the page's path.

    `histories` are the training curves by stage name.
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
        paper_tables=laid_out(results),
        agreement={(own.stage, own.teacher): own for own in results.agreements},
        examples=examples,
        parts_of=parts_of,
        costs=costs_of(results),
        duration=duration,
        doubted=list_doubted(results),
        doubt_notes=NOTES,
        doubt_answers=ANSWERS,
        by_teachers=BY_TEACHERS,
        bounds=bounds,
        fraction=fraction,
        score_text=score_text,
        pgr_text=pgr_text,
        signed=signed,
        p_text=p_text,
        labels={system.stage: system.label for system in systems},
    )
