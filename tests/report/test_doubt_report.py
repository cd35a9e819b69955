"""The report's section on doubt: there when asked for, whole, and never calling vacuity what it is not."""

import pytest
from html_page import Page
from test_report import make_results, student

from raw2s.doubt_results import Calibration, CalibrationError, Doubt, Ensemble, ReliabilityBin
from raw2s.report import write_report
from raw2s.report.markdown import run_section
from raw2s.results import Claim, Results

FIGURES = {
    "auroc_ci95": (0.6, 0.8),
    "aurc": 0.2119,
    "aurc_ci95": (0.1, 0.3),
    "at_80": 0.8123,
    "at_80_ci95": (0.7, 0.9),
    "gain_80": 0.0456,
    "gain_80_ci95": (-0.01, 0.1),
}
RISK = [k / 40 for k in range(20)]


def record(measure, auroc):
    return Doubt(measure=measure, auroc=auroc, risk=RISK, **FIGURES)


def error(nll):
    return CalibrationError(nll=nll, nll_ci95=(0.1, 0.9), brier=0.3, brier_ci95=(0.2, 0.4), ece=0.111, rms_ce=0.0987)


CALIBRATION = Calibration(
    as_is=error(0.7654),
    temperature=[1.2, 1.4],
    scaled=error(0.6543),
    reliability=[ReliabilityBin(answers=10, confidence=0.2 * k, accuracy=0.15 * k) for k in range(1, 6)],
)
TEXT = CALIBRATION.model_copy(update={"temperature": [], "scaled": None})
ENSEMBLE = Ensemble(
    members=3, score=0.9321, ci95=(0.9, 0.95), doubt=[record("mutual_information", 0.7111)], calibration=CALIBRATION
)


def results():
    asked = student("bayesian", 0.7, stage="student/0").model_copy(
        update={"doubt": [record("vacuity", 0.6543), record("entropy", None)], "calibration": CALIBRATION, "ensemble": ENSEMBLE}
    )
    return make_results([asked, student("naive", 0.6, stage="student/1")])


def test_every_figure_stands_in_the_page(tmp_path):
    page = Page(write_report(results(), {}, [], tmp_path).read_text(encoding="utf-8"))
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    for said in (
        "0.654",
        "undefined",
        "0.212",
        "0.812",
        "+0.046",
        "ensemble of 3",
        "0.711",
        "0.932",
        "0.765",
        "1.20, 1.40",
        "0.099",
    ):
        assert said in page.text
    assert (tmp_path / "figures" / "risk.svg").is_file()
    assert (tmp_path / "figures" / "reliability.svg").is_file()
    assert "epistemic" not in page.text
    assert "within one vocabulary only" in page.text


def test_texts_have_no_temperature_and_who_was_not_asked_no_section(tmp_path):
    asked = student("bayesian", 0.7).model_copy(update={"doubt": [record("entropy", 0.6)], "calibration": TEXT})
    page = Page(write_report(make_results([asked]), {}, [], tmp_path).read_text(encoding="utf-8"))
    assert "0.765" in page.text
    assert "temperature" not in page.text
    page = Page(write_report(make_results([student("naive", 0.6)]), {}, [], tmp_path / "plain").read_text(encoding="utf-8"))
    assert "AUROC" not in page.text


def test_results_with_doubt_are_read_as_they_were_written(tmp_path):
    results().write(tmp_path)
    assert Results.read(tmp_path) == results()


def test_a_pages_section_has_every_measure_and_both_calibrations():
    section = run_section(results())
    title = "Bayesian multi-weak (EDL) with soft labels"
    assert (
        f"| {title} | vacuity | 0.654 [0.600, 0.800] | 0.212 [0.100, 0.300] | 0.812 [0.700, 0.900] | 0.700 | +0.046 [-0.010, 0.100] |"
        in section
    )
    assert f"| {title} | entropy | undefined [0.600, 0.800] | 0.212" in section
    assert f"| {title}, ensemble of 3 | mutual information | 0.711" in section
    assert f"| {title} | after a temperature | 0.654 | 0.300 | 0.111 | 0.099 |" in section
    assert "Calibration" not in run_section(make_results([student("naive", 0.6)]))


@pytest.mark.parametrize(
    ("verdict", "answer"), [("as the paper", "yes"), ("the reverse", "no, the reverse"), ("cannot be told",) * 2]
)
def test_what_doubt_is_worth_is_said_whichever_way_it_falls(tmp_path, verdict, answer):
    claim = Claim(
        statement="Vacuity | <b>?", paper=None, effect=0.0421, ci95=(0.01, 0.07), p=0.001, p_holm=0.0123, verdict=verdict
    )
    weighed = results().model_copy(update={"doubt_claims": [claim]})
    assert f"| Vacuity \\| <b>? | +0.042 | [0.010, 0.070] | 0.012 | {answer} |" in run_section(weighed)
    page = write_report(weighed, {}, [], tmp_path).read_text(encoding="utf-8")
    assert "Vacuity | &lt;b&gt;?" in page and f"<td>{answer}</td>" in page
