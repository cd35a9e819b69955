"""Our figures in the paper's tables, and the section of the page that a grid writes."""

from itertools import groupby

import pytest
from test_report import STUDENTS, make_results, student

from raw2s.report.markdown import end_mark, put_into, run_section, start_mark
from raw2s.report.paper_layout import laid_out
from raw2s.report.paper_tables import PAPER
from raw2s.results import Claim

CDPO = student("bayesian+cdpo", 0.44, aux=True, pgr=0.31, stage="cdpo/3")
RESULTS = make_results([*STUDENTS, CDPO], baseline=None)


def rows_of(title, results=RESULTS):
    (table,) = [table for table in laid_out(results) if table.title.startswith(title)]
    return {row[0]: dict(zip(table.columns[1:], row[1:], strict=True)) for row in table.rows}


def test_our_cell_stands_beside_the_papers_of_the_same_method_and_settings():
    bayesian = rows_of("Table 5")["Bayesian multi-weak"]
    assert (bayesian["SLU-F1"], bayesian["PGR"]) == ("0.422 ± 0.010", "0.240")
    assert (bayesian["SLU-F1 (aux)"], bayesian["PGR (aux)"]) == ("0.350 ± 0.010", "undefined")
    assert (bayesian["paper"], bayesian["PGR, paper"], bayesian["paper (aux)"]) == ("0.715", "0.413", "0.726")
    cdpo = rows_of("Table 5")["Bayesian multi-weak, then cDPO"]
    assert (cdpo["SLU-F1 (aux)"], cdpo["paper (aux)"], cdpo["paper"]) == ("0.440 ± 0.010", "0.728", "")


def test_a_single_teacher_stands_beside_the_papers_in_its_place():
    single = rows_of("Table 4")["single: gpt-neox"]  # the third teacher, as Pythia is
    assert (single["SLU-F1"], single["paper"]) == ("0.431 ± 0.010", "0.695")
    models = rows_of("Table 3")
    assert [row["paper"] for row in models.values()] == ["0.660", "0.665", "0.680", "0.781"]


def test_with_another_number_of_teachers_none_stands_beside_the_papers():
    two = make_results(STUDENTS, baseline=None, teachers=RESULTS.teachers[1:])
    assert {row["paper"] for name, row in rows_of("Table 3", two).items() if "ceiling" not in name} == {""}
    assert rows_of("Table 4", two)["single: gpt-neox"]["paper"] == ""


def test_a_run_without_a_method_of_the_paper_has_no_such_table():
    assert laid_out(make_results([student("dawid_skene", 0.4)])) == []


@pytest.mark.parametrize("form", ["text", "classes"])
def test_every_cell_of_the_paper_has_a_place(form):
    """A run of all methods of the paper's tables shows each of its figures once, single teachers' included."""
    paper = PAPER[form]
    ours = list(RESULTS.tested)
    back = dict(zip(paper.teachers, (teacher.name for teacher in ours), strict=True))
    students = [
        student("bayesian", 0.4, aux=cell.aux, confidence=cell.confidence).model_copy(
            update={
                "method": (f"single:{back[cell.teacher]}" if cell.teacher else cell.method) + ("+cdpo" if cell.cdpo else ""),
                "title": "t",
            }
        )
        for cell in paper.cells
    ]
    results = make_results(students, form=form)
    shown = sorted(row[i] for table in laid_out(results)[1:] for row in table.rows for i in (3, 7) if row[i])
    assert shown == sorted(f"{figures.score:.3f}" for figures in paper.cells.values())


def test_the_section_is_put_in_place_of_the_former_one_and_the_rest_of_the_page_stays():
    claim = Claim(statement="a | b", paper=0.1, effect=-0.2, ci95=(-0.3, -0.1), p=0.001, p_holm=0.01, verdict="the reverse")
    first = put_into("# Results\n", RESULTS)
    page = put_into(
        first.replace("# Results", "# Results\nBy hand.") + "\nAfter it.\n", RESULTS.model_copy(update={"claims": [claim]})
    )
    assert page.startswith("# Results\nBy hand.") and page.endswith("After it.\n")
    assert page.count(start_mark("demo")) == page.count(end_mark("demo")) == 1
    assert "| a \\| b | +0.100 | -0.200 | [-0.300, -0.100] | 0.010 | the reverse |" in page
    other = put_into(page, RESULTS.model_copy(update={"run": "other"}))
    assert other.startswith(page.rstrip()) and start_mark("other") in other


def test_every_table_of_the_section_is_whole():
    tables = [list(own) for bar, own in groupby(run_section(RESULTS).splitlines(), lambda line: line.startswith("|")) if bar]
    assert len(tables) == 4
    for table in tables:
        assert len(table) > 2 and len({line.replace("\\|", "").count("|") for line in table}) == 1
