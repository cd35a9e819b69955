"""The paper's figures as transcribed: every printed PGR is that of the printed scores."""

import pytest

from raw2s.evaluation import performance_gap_recovered
from raw2s.report.paper_tables import PAPER

CELLS = [(form, cell) for form, tables in PAPER.items() for cell in tables.cells]


@pytest.mark.parametrize(("form", "cell"), CELLS)
def test_every_pgr_is_that_of_its_score(form, cell):
    tables = PAPER[form]
    weak = [tables.teachers[cell.teacher]] if cell.teacher else list(tables.teachers.values())
    figures = tables.cells[cell]
    # Three scores rounded to 0.0005, over a gap of 0.1 at least.
    assert performance_gap_recovered(figures.score, weak, tables.ceiling) == pytest.approx(figures.pgr, abs=0.006)


def test_every_row_is_there():
    assert {form: len(tables.cells) for form, tables in PAPER.items()} == {"classes": 10, "text": 25}
