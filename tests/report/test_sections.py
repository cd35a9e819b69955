"""The report's sections below the scores: the paper's tables, agreement, highlighted examples, cost and licences."""

import pytest
from html_page import Page
from hypothesis import given
from hypothesis import strategies as st
from test_report import NASTY, STUDENTS, TEACHERS, make_results, student

from raw2s.doubt_results import Doubt
from raw2s.report import write_report
from raw2s.report.costs import costs_of, duration
from raw2s.report.examples import parts_of
from raw2s.report.outcome import outcome
from raw2s.report.systems import signed
from raw2s.results import Agreement, StageRecord

STAGES = [
    StageRecord(name="split@1", key="a", cached=True, seconds=2.0),
    StageRecord(name="teacher/opt@1", key="b", cached=True, seconds=60.0),
    StageRecord(name="teacher/gpt2@1", key="c", cached=False, seconds=100.5),
    StageRecord(name="teacher/gpt2@2", key="d", cached=False, seconds=7200.0),
]
text = st.text(st.sampled_from('ab <&"{}\n:é'), max_size=30)


def page_of(results, folder):
    page = Page(write_report(results, {}, [], folder).read_text(encoding="utf-8"))
    assert page.open == []
    return page


@given(text, text)
def test_the_parts_of_an_answer_are_the_answer_and_those_of_gold_are_gold(answer, gold):
    parts = parts_of(answer, gold)
    assert "".join(part for kind, part in parts if kind != "missing") == answer
    assert "".join(part for kind, part in parts if kind != "extra") == gold
    assert all(part for _, part in parts)


def test_only_the_words_that_differ_are_marked():
    assert parts_of('{"time": "9 pm"}', '{"time": "9 am"}') == [
        ("same", '{"time": "9 '),
        ("missing", "am"),
        ("extra", "pm"),
        ("same", '"}'),
    ]


def test_the_cost_of_a_kind_tells_what_was_made_from_what_was_found():
    split, teachers, total = costs_of(make_results(STUDENTS, stages=STAGES))
    assert (split.kind, split.made, split.cached, split.cached_seconds) == ("split", 0, 1, 2.0)
    assert (teachers.kind, teachers.made, teachers.made_seconds, teachers.cached_seconds) == ("teacher", 2, 7300.5, 60.0)
    assert (total.made, total.made_seconds, total.cached, total.cached_seconds) == (2, 7300.5, 2, 62.0)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.04, "0.0 s"), (59.4, "59.4 s"), (59.6, "1 min 00 s"), (3661, "1 h 01 min"), (360000, "100 h 00 min")]
)
def test_a_duration_is_in_units_that_are_read(seconds, said):
    assert duration(seconds) == said


def test_the_page_has_the_papers_tables_where_the_run_has_its_methods(tmp_path):
    page = page_of(make_results(STUDENTS), tmp_path)
    assert all(part in page.text for part in ("In the paper's tables", "Table 5: soft labels", "0.715", "PGR, paper"))
    assert "In the paper's tables" not in page_of(make_results([student("dawid_skene", 0.4)]), tmp_path).text


def test_agreement_is_a_matrix_of_all_models_by_the_teachers(tmp_path):
    stages = [*(f"teacher/{name}" for name in TEACHERS), "ceiling", *(own.stage for own in STUDENTS)]
    found = [
        Agreement(stage=one, teacher=f"teacher/{name}", same=(17 * i + 5 * k) / 1000, both_wrong=(13 * i + 7 * k + 400) / 1000)
        for i, one in enumerate(stages)
        for k, name in enumerate(TEACHERS)
    ]
    page = page_of(make_results(STUDENTS, agreements=found), tmp_path)
    for own in found:
        assert f"{own.same:.1%}{own.both_wrong:.1%}" in page.text
    same = {(own.stage, own.teacher): own.same for own in found}
    for own in STUDENTS:
        misfit = 1 - same[own.stage, f"teacher/{own.best_teacher}"]
        assert f"{misfit:.1%}{signed(own.over_best)}" in page.text
    assert "Agreement" not in page_of(make_results(STUDENTS), tmp_path).text


def test_what_data_and_configs_say_is_escaped_wherever_it_stands(tmp_path):
    """Names, credits, notes and licences come from configs and files."""
    doubt = Doubt(
        measure="entropy",
        auroc=0.7,
        auroc_ci95=(0, 1),
        aurc=0.2,
        aurc_ci95=(0, 1),
        at_80=1,
        at_80_ci95=(0, 1),
        gain_80=0,
        gain_80_ci95=(0, 1),
        risk=[0, 1],
    )
    own = student("naive", 0.4).model_copy(
        update={"title": f"{NASTY} $\\frac $", "doubt": [doubt], "learned_from": [NASTY], "pgr_by_teacher": {NASTY: 0.3}}
    )
    results = make_results([own], run=NASTY, credit=NASTY, notes=[NASTY], licences=[NASTY], environment={NASTY: NASTY})
    teacher = results.teachers[0].model_copy(update={"name": NASTY, "title": f"teacher {NASTY}", "gap_is_noise": True})
    pairs = [
        Agreement(stage=stage, teacher=teacher.stage, same=0.5, both_wrong=0.1) for stage in (teacher.stage, own.stage, "ceiling")
    ]
    curve = [{"step": 1, "loss": 1.0}]
    results = results.model_copy(update={"teachers": [teacher], "agreements": pairs})
    file = write_report(results, {f"{own.stage}@1": curve, f"{teacher.stage}@1": curve}, [], tmp_path)
    page = Page(file.read_text(encoding="utf-8"))
    assert page.open == []
    assert not {"script", "b"} & page.tags
    assert page.text.count("<script>alert('x')</script>") >= 12


def test_of_many_students_the_outcome_names_the_best_and_counts_the_rest():
    many = [student("naive", 0.43 + k / 100, stage=f"student/{k}-naive") for k in range(9)]
    said = outcome(make_results(many))
    best = "naive multi-weak (CE) (student/8) with soft labels"
    assert said.lower().count(best.lower()) == 2  # a gap recovered, and against the best teacher
    assert "and 6 more recovered a measurable share" in said
    assert "(student/0)" not in said
