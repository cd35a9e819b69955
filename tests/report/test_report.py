"""The report on synthetic results: wording, escaping, self-containment, and a table that fits a log."""

import html
import io
import json
import math
import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from html_page import Page
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from raw2s.report import closing_table, write_report
from raw2s.report.examples import ExampleGroup, ShownAnswer, ShownExample
from raw2s.report.figures import to_svg
from raw2s.report.markdown import run_section
from raw2s.report.outcome import outcome
from raw2s.report.score_figures import pgr_figure, score_figure
from raw2s.report.systems import list_systems, notes, stage_title
from raw2s.report.teachers_figure import teachers_figure
from raw2s.report.training_figures import edl_figure, smoothed, training_figure
from raw2s.results import Baseline, Ceiling, Claim, Difference, OnB, Results, SomeTeachers, StageRecord, Student, Teacher
from raw2s.tasks.slurp import CREDIT

TEACHERS = {"gpt2": 0.326, "opt": 0.357, "gpt-neox": 0.425}
CEILING = 0.553
NASTY = "wake me <b>up</b> & <script>alert('x')</script>"

TITLES = {
    "bayesian": "Bayesian multi-weak (EDL)",
    "naive": "naive multi-weak (CE)",
    "joint": "joint decoding (CE)",
    "dawid_skene": "Dawid-Skene (CE)",
    "single:gpt-neox": "single teacher gpt-neox (CE)",
}
ANSWERS = {"empty": 0.35, "unparsable": 0.0}


def scored(score, **extra):
    return {
        "form": "text",
        "score": score,
        "ci95": (score - 0.02, score + 0.02),
        "per_seed": [score - 0.01, score + 0.01],
        "standard_error": 0.0104,
        **extra,
    }


def student(method, score, *, pgr=0.2, pgr_ci95=(0.1, 0.3), aux=False, confidence=True, stage="student/0", over=0.4):
    base, plus, _ = method.partition("+")
    return Student(
        stage=stage,
        title=TITLES[base] + (", then cDPO" if plus else ""),
        method=method,
        aux=aux,
        confidence=confidence,
        pgr=pgr,
        pgr_ci95=pgr_ci95,
        pgr_by_teacher={name: (score - weak) / (CEILING - weak) for name, weak in TEACHERS.items()},
        learned_from=list(TEACHERS),
        best_teacher="gpt-neox",
        over_best=score - TEACHERS["gpt-neox"],
        over_best_ci95=(-0.05, 0.05),
        over_best_p=over,
        **scored(score, empty=0.4312, unparsable=0.0123),
    )


def teacher(name, score, *, noise=False):
    return Teacher(name=name, stage=f"teacher/{name}", title=f"teacher {name}", gap_is_noise=noise, **scored(score, **ANSWERS))


def make_results(students, noise=(), **changes):
    found = {
        "run": "demo",
        "task": "slurp_slots",
        "form": "text",
        "metric": "slu_f1",
        "metric_title": "SLU-F1",
        "credit": CREDIT,
        "seeds": [1, 2],
        "test_examples": 1234,
        "teachers": [teacher(name, score, noise=name in noise) for name, score in TEACHERS.items()],
        "ceiling": Ceiling(
            name="tiny-llama", stage="ceiling", title="ceiling (student on ground truth)", **scored(CEILING, **ANSWERS)
        ),
        "baseline": Baseline(answer='{"date": "today"}', score=0.131),
        "students": students,
        "environment": {"python": "3.11.9", "torch": "2.13.0"},
        "stages": [StageRecord(name="split@1", key="0123abcd", cached=True, seconds=1.25)],
        "finished": "2026-01-02T03:04:05+00:00",
        "command": "python jobs/full_pipeline.py --set name='<demo>'",
    }
    return Results(**found | changes)


def curve(edl=False):
    terms = [{"nll": 0.0 if step == 3 else 2.0 / step, "kl": 500.0} if edl else {} for step in range(1, 11)]
    points = [
        {"step": step, "loss": math.nan if step == 2 else 2.0 / step, "gamma": 0.0, "kl_weight": 1e-6 * step, **term}
        for step, term in zip(range(1, 11), terms, strict=True)
    ]
    return [*points, {"step": 10, "validation_loss": 0.5}]


STUDENTS = [
    student("single:gpt-neox", 0.4311, confidence=False, pgr=0.29, pgr_ci95=(0.1, 0.5), stage="student/0-single-gpt-neox"),
    student("bayesian", 0.4223, pgr=0.24, pgr_ci95=(-0.01, 0.5), stage="student/1-bayesian"),
    student("bayesian+cdpo", 0.4009, pgr=-0.53, pgr_ci95=(-0.7, -0.3), stage="cdpo/1"),
    student("bayesian", 0.3502, aux=True, pgr=None, pgr_ci95=(None, None), stage="student/2-bayesian"),
]
HISTORIES = {f"teacher/gpt2@{seed}": curve() for seed in (1, 2)} | {
    f"student/1-bayesian@{seed}": curve(edl=True) for seed in (1, 2)
}
EXAMPLES = [
    ExampleGroup(
        title=f"The teachers differ {NASTY}",
        count=17,
        examples=[
            ShownExample(
                prompt=NASTY,
                gold='{"time": "9"}',
                answers=[
                    ShownAnswer(stage="teacher/opt", text='{"time": "9"}', right=True),
                    ShownAnswer(stage="ceiling", text=NASTY, right=False),
                    ShownAnswer(stage="cdpo/1", text="", right=False),
                ],
            )
        ],
    ),
]
ON_B = OnB(
    score=0.4567,
    ci95=(0.41, 0.51),
    per_seed=[0.44, 0.47],
    items=[90, 80],
    missing=[10, 20],
    ids_not_in_b=[3, 3],
    annotators=[2, 2],
)
GIVEN = Teacher(name="ann", stage="labels/ann", title="teacher ann", form="text", on_b=ON_B)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    file = write_report(make_results(STUDENTS, noise=["gpt-neox"]), HISTORIES, EXAMPLES, folder)
    assert file == folder / "report.html"
    return file


@pytest.fixture(scope="module")
def page(report):
    return Page(report.read_text(encoding="utf-8"))


def printed(results, width=80):
    console = Console(file=io.StringIO(), width=width)
    console.print(closing_table(results))
    return console.file.getvalue()


def test_every_model_has_a_label_of_its_own_and_the_stage_that_trained_it():
    stages = ["student/0-joint", "cdpo/0", "student/1-joint"]
    twins = [student(method, 0.4, stage=stage) for method, stage in zip(["joint", "joint+cdpo", "joint"], stages, strict=True)]
    systems = list_systems(make_results(twins))
    assert len({system.label for system in systems}) == len(systems)
    assert [s.stage for s in systems if s.role == "student"] == stages
    assert stage_title("cdpo/0@7", systems) == "joint decoding (CE), then cDPO with soft labels@7"
    assert stage_title("label", systems) == "label"


def test_students_alike_but_for_their_losses_values_are_named_by_these():
    values = [{"gamma_max": 0.003, "kl_weight": 1e-6}, {"gamma_max": 0.1, "kl_weight": 1e-6}]
    students = [
        student("bayesian", 0.4, aux=True, stage=f"student/{k}").model_copy(update={"loss_values": own})
        for k, own in enumerate(values)
    ]
    names = [system.name for system in list_systems(make_results(students)) if system.role == "student"]
    title = students[0].title
    assert names == [f"{title} (gamma_max 0.003)", f"{title} (gamma_max 0.1)"]


def test_results_are_read_as_they_were_written(tmp_path):
    results = make_results(STUDENTS, teachers=[teacher("opt", 0.357), GIVEN], ceiling=None, baseline=None)
    assert results.write(tmp_path) == tmp_path / "results.json"
    assert Results.read(tmp_path) == results
    (tmp_path / "results.json").write_text(json.dumps(results.model_dump(mode="json") | {"label_files": []}))
    with pytest.raises(ValueError, match="label_files"):
        Results.read(tmp_path)


score = st.floats(0, 1)
pgr = st.floats(-20, 20)


@settings(deadline=None, max_examples=40)
@given(score, pgr, st.tuples(pgr, pgr).map(sorted), st.booleans())
def test_the_table_fits_80_columns_with_every_number_whole(value, gap, ci95, noise):
    text = printed(make_results([student("bayesian+cdpo", value, pgr=gap, pgr_ci95=ci95)], noise=["opt"] if noise else []))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert "\x1b" not in text
    low, high = ci95
    for number in (
        f"{value:.3f} ± 0.010",
        f"{gap:z.3f}" + (" *" if noise else ""),
        f"[{low:z.3f}, {high:z.3f}]",
        "43.1%",
        "1.2%",
    ):
        assert number in text


def test_a_log_has_each_teacher_the_ceiling_and_what_the_intervals_are():
    text = " ".join(printed(make_results(STUDENTS)).split())
    for name, value in TEACHERS.items():
        assert re.search(rf"teacher {name} {value:.3f} ± 0.010", text)
    assert "bootstrap over the 1,234 test examples and the seeds 1 and 2, paired in both" in text
    assert "±: the standard error over the seeds" in text
    assert "NOISE" not in text
    assert "*" not in text


def test_classification_has_no_columns_of_empty_answers():
    classes = {"form": "classes", "empty": None, "unparsable": None}
    text = make_results([student("naive", 0.4)])
    results = text.model_copy(
        update={
            "form": "classes",
            "metric": "accuracy",
            "metric_title": "accuracy",
            "teachers": [own.model_copy(update=classes) for own in text.teachers],
            "ceiling": text.ceiling.model_copy(update=classes),
            "students": [own.model_copy(update=classes) for own in text.students],
        }
    )
    shown = printed(results)
    assert "accuracy" in shown
    assert "empty" not in shown


def test_the_trivial_baseline_is_shown_with_what_it_is():
    text = " ".join(printed(make_results(STUDENTS)).split())
    assert "always" in text and '"today"}' in text and "0.131" in text
    assert "the constant answer that scores best on the validation examples" in text
    assert "always" not in printed(make_results(STUDENTS, baseline=None))


def test_an_undefined_pgr_says_so_and_why():
    made = make_results([student("naive", 0.4, pgr=None, pgr_ci95=(None, None))], noise=["opt"])
    level = [own.model_copy(update={"score": CEILING}) if own.name == "opt" else own for own in made.teachers]
    results = made.model_copy(update={"teachers": level})
    text = " ".join(printed(results).split())
    assert "undefined" in text.split("PGR is undefined")[0]
    assert "PGR is undefined where a teacher scores at least as high as the ceiling; here teacher opt." in text
    assert "there is no gap to recover" in outcome(results)
    assert "The PGR of naive multi-weak (CE) with soft labels is undefined." in outcome(results)


def test_a_gap_within_the_noise_is_never_bare():
    results = make_results([student("naive", 0.4, pgr=0.2, pgr_ci95=(0.1, 0.3))], noise=["gpt-neox"])
    text = printed(results)
    assert "0.200 *" in text
    assert "WITHIN THE NOISE: the gap between the ceiling and teacher gpt-neox" in " ".join(text.split())
    assert "within the noise" in outcome(results)
    assert "recovered a measurable share" not in outcome(results)


@pytest.mark.parametrize(
    ("pgr", "ci95", "says", "never"),
    [
        (0.2, (0.1, 0.3), "recovered a measurable share", "not distinguishable from none"),
        (0.2, (-0.1, 0.5), "not distinguishable from none", "measurable"),
        (0.2, (None, None), "not distinguishable from none", "measurable"),
        (-0.2, (-0.4, 0.1), "fell below the teachers on average, by a margin not distinguishable", "measurable"),
        (-0.2, (-0.4, -0.1), "fell below the teachers on average.", "not distinguishable from none"),
    ],
)
def test_the_outcome_says_no_more_than_the_interval_allows(pgr, ci95, says, never):
    text = outcome(make_results([student("naive", 0.4, pgr=pgr, pgr_ci95=ci95)]))
    assert says in text
    assert never not in text


@pytest.mark.parametrize(
    ("score", "over", "says"),
    [(0.45, 0.01, "Above"), (0.45, 0.05, "Not distinguishable from"), (0.4, 0.01, "Below"), (0.4, None, None)],
)
def test_a_student_below_its_best_teacher_is_said_to_be_whatever_its_pgr(score, over, says):
    text = outcome(make_results([student("naive", score, over=over)]))
    assert "recovered a measurable share of the mean gap" in text
    found = [
        key for key in ("Above", "Not distinguishable from", "Below") if f"{key} the best teacher that it learned from" in text
    ]
    assert found == ([says] if says else [])
    assert says is None or f"({score - 0.425:+.3f} to gpt-neox, 95 % interval [-0.050, 0.050], p {over:.3f})" in text


def test_how_many_differences_are_real_and_what_can_be_seen_is_said(tmp_path):
    def difference(one, other, p_holm):
        return Difference(
            one=one,
            other=other,
            difference=0.0088,
            ci95=(-0.01, 0.03),
            p=p_holm / 2,
            p_holm=p_holm,
            sign_p=p_holm / 3,
            sign_p_holm=0.271,
        )

    several = [difference("student/1-bayesian", "cdpo/1", 0.0004), difference("student/1-bayesian", "student/2-bayesian", 0.06)]
    results = make_results(STUDENTS, differences=several, visible=0.0213, visible_between=0.0187)
    assert "Of 2 differences between students 1 is real at p < 0.05 after Holm's correction." in outcome(results)
    seen = "1,234 test examples and 2 seeds can see a difference of 0.021 to a best teacher and of 0.019 between two students."
    assert seen in outcome(results)
    page = Page(write_report(results, {}, [], tmp_path).read_text(encoding="utf-8"))
    assert page.open == []
    assert "Differences between students (2)" in page.text
    assert all(text in page.text for text in ("+0.009", "< 0.001", "0.060", "0.020", "0.271", "±"))
    none = outcome(make_results(STUDENTS, differences=several[1:], visible=None))
    assert "The difference between the two students is not real at p < 0.05" in none
    assert "can see" not in none


def test_the_papers_claims_are_a_section_of_the_report_and_a_line_of_the_table(tmp_path):
    def claim(verdict, paper=0.0163):
        statement = f"Bayesian multi-weak beats naive multi-weak ({verdict})"
        return Claim(statement=statement, paper=paper, effect=-0.0123, ci95=(-0.02, 0.01), p=0.02, p_holm=0.0321, verdict=verdict)

    claims = [claim("the reverse"), claim("cannot be told", paper=None), claim("cannot be told")]
    results = make_results(STUDENTS, claims=claims)
    said = "Claims of the paper that this run can test: 3, of them 0 as the paper, 1 the reverse and 2 cannot be told"
    assert said in " ".join(printed(results).split())
    page = Page(write_report(results, {}, [], tmp_path).read_text(encoding="utf-8"))
    assert page.open == []
    assert "What the paper claims, and what this run says" in page.text
    for part in (
        claims[0].statement,
        "+0.016",
        "no figure",
        "-0.012",
        "[-0.020, 0.010]",
        "0.032",
        "the reverse",
        "cannot be told",
    ):
        assert part in page.text
    without = Page(write_report(make_results(STUDENTS), {}, [], tmp_path).read_text(encoding="utf-8"))
    assert "claim" not in without.text
    assert "claims" not in printed(make_results(STUDENTS))


def test_students_of_fewer_teachers_are_told_apart_by_these_and_stand_by_their_number(tmp_path):
    some = [
        student("bayesian", score, stage=f"student/{i}").model_copy(update={"learned_from": own, "weighting": weighting})
        for i, (own, score, weighting) in enumerate(
            [
                (["opt"], 0.41, "equal"),
                (["gpt2"], 0.42, "equal"),
                (list(TEACHERS), 0.44, "equal"),
                (list(TEACHERS), 0.45, "devel"),
            ]
        )
    ]
    title, settings = "Bayesian multi-weak (EDL)", "with soft labels"
    numbers = [
        SomeTeachers(
            method=f"{title} {settings}",
            weighting=weighting,
            teachers=number,
            stages=stages,
            score=score,
            ci95=(0.4, 0.46),
            pgr=0.2,
        )
        for number, stages, score, weighting in [
            (1, ["student/0", "student/1"], 0.415, "equal"),
            (3, ["student/2"], 0.44, "equal"),
            (3, ["student/3"], 0.45, "devel"),
        ]
    ]
    results = make_results(some, by_teachers=numbers)
    assert [s.name for s in list_systems(results) if s.role == "student"] == [
        f"{title} of opt", f"{title} of gpt2", title, f"{title}, weights fitted on devel",
    ]  # fmt: skip
    rows = [line for line in run_section(results).splitlines() if line.startswith(f"| {title} {settings}")]
    assert f"| {title} {settings} | 1 | 2 | 0.415 | [0.400, 0.460] | 0.200 |" in rows
    assert f"| {title} {settings}, weights fitted on devel | 3 | 1 | 0.450 | [0.400, 0.460] | 0.200 |" in rows
    page = write_report(results, {}, [], tmp_path).read_text(encoding="utf-8")
    assert "By the number of teachers" in page
    axes = teachers_figure(results).axes[0]
    heights = [y for line in axes.get_lines() for y in line.get_ydata()]
    assert {0.41, 0.42, 0.415, 0.44, 0.45} <= set(heights)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "3"]


def test_of_one_seed_there_is_no_standard_error_and_the_spread_over_seeds_is_said_to_be_missing():
    alone = student("naive", 0.4).model_copy(update={"per_seed": [0.4], "standard_error": None})
    text = " ".join(printed(make_results([alone], teachers=[GIVEN], ceiling=None, seeds=[7])).split())
    assert "±" not in text
    assert "of one seed (7): they and p hold the test examples alone, and training again with another seed moves" in text


def test_answers_that_cannot_be_parsed_are_warned_of():
    mostly = student("naive", 0.4).model_copy(update={"unparsable": 0.21})
    assert any(
        line.startswith("UNPARSABLE: more than 20% of the answers of naive multi-weak") for line in notes(make_results([mostly]))
    )
    assert not any("UNPARSABLE" in line for line in notes(make_results([student("naive", 0.4)])))


def test_the_outcome_says_who_taught_whom_and_the_gap():
    text = outcome(make_results(STUDENTS))
    for part in ("gpt2, opt and gpt-neox", "tiny-llama", "0.326 to 0.425", "0.553", "a gap of 0.128 to the best teacher"):
        assert part in text


def test_the_page_is_well_formed_and_its_ids_are_unique(page):
    assert page.open == []
    assert page.ids
    assert len(set(page.ids)) == len(page.ids)


def test_the_page_loads_nothing(report, page):
    assert {link for link in page.loaded if not link.startswith(("#", "data:,"))} == set()
    assert not re.search(r"url\(\s*['\"]?(https?:|//)|@import", report.read_text(encoding="utf-8"))


def test_utterances_and_answers_are_escaped(report, page):
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert page.text.count(NASTY) == 2  # the rule, and the prompt; of the ceiling's answer the words that gold has not are marked
    answer = re.search(r"ceiling.*?<code>(.*?)</code>", report.read_text(encoding="utf-8").split(">gold</th>")[1], re.DOTALL)[1]
    without_gold = re.sub(r"<del>.*?</del>|</?mark>", "", answer)
    assert html.unescape(without_gold) == NASTY
    assert "name='<demo>'" in page.text


def test_wrong_answers_are_told_in_words(report, page):
    cells = re.findall(r"<td class=\"(right|wrong)\">(.*?)</td>", report.read_text(encoding="utf-8"))
    assert cells == [("right", "✓ right"), ("wrong", "✗ wrong"), ("wrong", "✗ wrong")]
    assert "no text" in page.text


def test_the_page_says_what_is_noise_and_undefined_and_whose_data(page):
    for part in (
        "WITHIN THE NOISE",
        "(gap is noise)",
        "undefined",
        CREDIT,
        "Eq. 13",
        "2026-01-02T03",
        "0123abcd",
    ):
        assert part in page.text


def test_links_inside_inlined_figures_lead_somewhere(report, page):
    text = report.read_text(encoding="utf-8")
    used = {link[1:] for link in page.loaded if link.startswith("#")} | set(re.findall(r"url\(#([^)]+)\)", text))
    assert used
    assert used <= set(page.ids)


def test_the_figures_are_svg_with_their_words_as_text(report):
    files = {file.stem: ET.parse(file).getroot() for file in (report.parent / "figures").iterdir()}
    assert files.keys() == {"scores", "pgr", "training", "edl"}
    words = {stem: " ".join(root.itertext()) for stem, root in files.items()}
    assert all(root.tag.endswith("svg") for root in files.values())
    assert "SLU-F1 on 1,234 test examples" in words["scores"]
    assert "best teacher" in words["scores"]
    assert "validation (ground truth)" in words["training"]
    assert words["training"].count("teacher gpt2") == 1  # two seeds, one panel
    assert "λ·KL / NLL" in words["edl"]


def test_without_edl_students_there_is_no_edl_figure():
    assert edl_figure({"teacher/gpt2": curve()}) is None


def test_a_run_without_curves_or_examples_still_has_a_report(tmp_path):
    made = make_results([], finished="", command="")
    first, *others = made.teachers
    results = made.model_copy(update={"teachers": [first.model_copy(update={"ci95": (None, None)}), *others]})
    page = Page(write_report(results, {}, [], tmp_path).read_text(encoding="utf-8"))
    assert page.open == []
    assert "Examples" not in page.text
    assert sorted(file.name for file in (tmp_path / "figures").iterdir()) == ["scores.svg"]


def test_a_label_file_is_told_with_its_score_on_the_training_items_and_is_in_no_pgr():
    tested = [teacher(name, score) for name, score in TEACHERS.items()]
    results = make_results([student("dawid_skene", 0.4)], teachers=[*tested, GIVEN])
    text = " ".join(printed(results).split())
    assert (
        "teacher ann, labels without a model: 0.457 [0.410, 0.510] against the ground truth of the 170 of 200 training items"
        in text
    )
    assert "the mean over the tested teachers whose labels it learned" in text
    assert "Dawid-Skene" in text
    assert outcome(results).startswith("4 weak teachers (gpt2, opt, gpt-neox and ann) labeled")
    assert "the tested teachers score 0.326 to 0.425" in outcome(results)


def test_label_files_alone_give_a_report_without_a_pgr(tmp_path):
    untested = student("naive", 0.4, pgr=None, pgr_ci95=(None, None)).model_copy(update={"pgr_by_teacher": {}})
    results = make_results([untested], teachers=[GIVEN])
    assert "so there is no PGR" in outcome(results)
    assert max(map(len, printed(results).splitlines())) <= 80
    assert "undefined" in printed(results)
    page = Page(write_report(results, {}, [], tmp_path).read_text(encoding="utf-8"))
    assert page.open == []
    assert "PGR over each teacher" not in page.text


def test_without_ground_truth_of_b_there_is_no_ceiling_and_no_pgr_and_the_table_says_so(tmp_path):
    blind = student("naive", 0.4, pgr=None, pgr_ci95=(None, None)).model_copy(update={"pgr_by_teacher": {}})
    unknown = GIVEN.model_copy(update={"on_b": ON_B.model_copy(update={"score": None, "ci95": (None, None), "per_seed": []})})
    results = make_results([blind], ceiling=None, teachers=[teacher("opt", 0.357), unknown])
    text = " ".join(printed(results).split())
    assert "B has no ground truth: there is no ceiling, and so no PGR" in text
    assert "it labels 170 of the 200 training items, whose ground truth is not known" in text
    assert "no ceiling and no PGR" in outcome(results)
    page = Page(write_report(results, {"student/0": curve()}, [], tmp_path).read_text(encoding="utf-8"))
    assert page.open == []
    assert "PGR over each teacher" not in page.text


def test_the_pgr_has_both_intervals_where_they_differ_and_one_of_one_seed():
    own = student("naive", 0.4, pgr=0.2, pgr_ci95=(0.1, 0.3))

    def lines(**changes):
        figure = pgr_figure(make_results([own.model_copy(update=changes)]))
        return sorted(tuple(line.get_xdata()) for line in figure.axes[0].get_lines() if len(set(line.get_xdata())) > 1)

    assert (0.1, 0.3) in lines() and (0.15, 0.25) not in lines()
    assert {(0.1, 0.3), (0.15, 0.25)} <= set(lines(pgr_ci95_examples=(0.15, 0.25)))
    assert lines(pgr_ci95_examples=(0.1, 0.3)).count((0.1, 0.3)) == 1
    assert (-2.0, 0.3) in lines(pgr_ci95=(-40.0, 0.3))
    assert pgr_figure(make_results([own.model_copy(update={"pgr": None})])) is None


def test_a_bar_over_a_gap_that_is_noise_is_hollow():
    solid, hollow = (pgr_figure(make_results([student("naive", 0.4)], noise=noise)).axes[0].patches[0] for noise in ([], ["opt"]))
    assert solid.get_facecolor()[3] > 0 == hollow.get_facecolor()[3]


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=200))
def test_a_smoothed_curve_stays_among_its_values_and_a_short_one_is_itself(values):
    line = smoothed(np.array(values))
    assert set(line) <= set(values) and len(line) == len(values)
    assert len(values) >= 40 or line.tolist() == values


def test_one_wild_step_does_not_move_the_smoothed_curve():
    values = np.linspace(3.0, 1.0, 200)
    wild = np.where(np.arange(200) == 77, 90.0, values)
    assert np.abs(smoothed(wild) - values).max() < 0.06


def test_losses_stand_on_a_logarithmic_axis_unless_one_is_not_above_0():
    points = [{"step": step, "loss": 2.0 / step} for step in range(1, 301)]
    below = [*points, {"step": 301, "loss": -0.1}]
    first, second = training_figure({"a@1": points, "a@2": points, "b@1": below}).axes[:2]
    assert (first.get_yscale(), second.get_yscale()) == ("log", "linear")
    drawn = [line.get_xdata() for line in first.get_lines() if len(line.get_xdata())]
    assert len(drawn) == 3  # two seeds smoothed, one as logged
    assert all(len(steps) <= 120 and steps[-1] == 300 for steps in drawn)


def test_figures_leave_matplotlib_as_it_was_and_repeat_exactly():
    before = dict(mpl.rcParams)
    svg = [to_svg(score_figure(make_results(STUDENTS))) for _ in range(2)]
    training_figure(HISTORIES)
    assert svg[0] == svg[1]
    assert dict(mpl.rcParams) == before


def test_what_a_reader_should_know_of_the_data_is_said():
    note = "2 of 4 prompts of task.validation are also among those to learn from"
    students = [student("naive", 0.4, pgr=0.2, pgr_ci95=(0.1, 0.3))]
    assert f"The data: {note}." in notes(make_results(students, notes=[note]))
    assert not any(line.startswith("The data") for line in notes(make_results(students)))
