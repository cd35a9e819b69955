"""The paper's claims, each way round, on made-up students."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from raw2s.evaluation import paired_bootstrap
from raw2s.evaluation.comparing import holm
from raw2s.pipeline.claims import judge
from raw2s.pipeline.contrasts import Contrast, contrasts
from raw2s.report.paper_tables import PAPER, Cell, cell_of
from raw2s.results import Student

GRID = [(form, list(tables.cells)) for form, tables in PAPER.items()]


def student(cell, score, method=None):
    name = cell.method + (f":{cell.teacher}" if cell.teacher else "") + ("+cdpo" if cell.cdpo else "")
    return Student(
        stage=name, title=name, form="text", score=score, ci95=(None, None), per_seed=[score], method=method or name,
        aux=cell.aux, confidence=cell.confidence, pgr=None, pgr_ci95=(None, None), pgr_by_teacher={}, learned_from=[],
        best_teacher=None, over_best=None, over_best_ci95=(None, None),
    )  # fmt: skip


def found(cells, scores, form):
    return {c.statement: c for c in contrasts([student(*pair) for pair in zip(cells, scores, strict=True)], form)}


@pytest.mark.parametrize(("form", "cells"), GRID)
def test_of_the_papers_own_scores_every_effect_is_the_papers(form, cells):
    scores = [figures.score for figures in PAPER[form].cells.values()]
    claims = found(cells, scores, form)
    assert [c.weights @ scores for c in claims.values()] == pytest.approx([c.paper for c in claims.values()])


def test_the_papers_effects_by_hand():
    claims = {s: c.paper for form, cells in GRID for s, c in found(cells, np.arange(len(cells)), form).items() if form == "text"}
    # Naive less the best single: Table 4 0.689 - 0.695, 0.673 - 0.688; Table 5 0.711 - 0.702, 0.700 - 0.703.
    naive = claims["Naive multi-weak does not beat the best of the single teachers' students"]
    assert naive == pytest.approx((-0.006 - 0.015 + 0.009 - 0.003) / 4)
    # Joint decoding less naive, Table 4.
    assert claims["Joint decoding beats naive multi-weak with hard labels"] == pytest.approx((0.024 + 0.033) / 2)
    # With less without, Table 5: three single teachers, naive, joint, Bayesian.
    on_average = claims["The auxiliary loss helps the students on average with soft labels"]
    assert on_average == pytest.approx((-0.020 + 0.110 + 0.001 - 0.011 + 0.0 + 0.011) / 6)
    assert claims["The auxiliary loss does not help joint decoding with soft labels"] == 0.0
    assert claims["Preference training (cDPO) adds to Bayesian multi-weak with the auxiliary loss"] == pytest.approx(0.002)
    assert len(claims) == 26


@given(st.data(), st.sampled_from(GRID))
def test_weights_sum_to_zero_and_a_score_for_all_gives_no_effect(data, grid):
    form, cells = grid
    some = data.draw(st.lists(st.sampled_from(cells), max_size=12))  # a place may be taken twice
    scores = data.draw(st.lists(st.floats(0, 1), min_size=len(some), max_size=len(some)))
    for contrast in found(some, scores, form).values():
        assert contrast.weights.sum() == pytest.approx(0)
        assert abs(contrast.weights).sum() == pytest.approx(2)  # a mean against a mean


def single(teacher, aux=False):
    return Cell(method="single", teacher=teacher, confidence=True, aux=aux)


NAIVE, BAYESIAN = (Cell(method=name, confidence=True, aux=False) for name in ("naive", "bayesian"))


def test_the_best_and_the_mean_of_single_teachers_and_two_students_of_one_place():
    cells = [single("a"), single("b"), NAIVE, NAIVE, BAYESIAN]
    claims = found(cells, [0.5, 0.6, 0.7, 0.9, 0.75], "classes")
    np.testing.assert_allclose(
        claims["Naive multi-weak beats the best of the single teachers' students"].weights, [0, -1, 0.5, 0.5, 0]
    )
    mean = claims["Naive multi-weak beats the mean of the single teachers' students"]
    np.testing.assert_allclose(mean.weights, [-0.5, -0.5, 0.5, 0.5, 0])
    np.testing.assert_allclose(claims["Bayesian multi-weak beats naive multi-weak"].weights, [0, 0, -0.5, -0.5, 1])
    assert len(claims) == 5  # no joint decoding, no auxiliary loss


def test_what_the_paper_has_not_is_in_no_claim():
    hard = Cell(method="bayesian", confidence=False, aux=False)
    assert (
        found([hard, Cell(method="naive", confidence=False, aux=False)], [0.5, 0.6], "classes") == {}
    )  # Table 2 has soft labels
    assert found([single("a"), NAIVE], [0.5, 0.6], "text") == {}  # one teacher is no choice of several
    assert found([NAIVE], [0.5], "text") == {}
    for method in ("naive+edl", "bayesian+cw_cdpo", "raven", "joint+edl+cdpo"):
        assert cell_of(student(NAIVE, 0.5, method=method)) is None
    assert cell_of(student(single("a.b-c", aux=True), 0.5)) == single("a.b-c", aux=True)


@pytest.mark.parametrize(("form", "cells"), GRID)
@pytest.mark.parametrize("side", [1, -1])
def test_every_claim_can_be_borne_out_and_reversed(form, cells, side):
    for name, contrast in found(cells, [figures.score for figures in PAPER[form].cells.values()], form).items():
        # Whoever counts for the statement gets more examples right, or fewer; 1000 examples, each student its own luck.
        towards = side * (1 if contrast.paper > 0 else -1) * np.sign(contrast.weights)
        right = (np.random.default_rng(3).random((len(cells), 1000)) < 0.6 + 0.2 * towards[:, None]).astype(float)
        samples = paired_bootstrap(dict(enumerate(right)), lambda share: share, resamples=200)
        (claim,) = judge([contrast], right.mean(axis=1), list(samples.values()))
        assert claim.verdict == ("as the paper" if side > 0 else "the reverse"), name
        assert claim.effect == pytest.approx(float(contrast.weights @ right.mean(axis=1)))
        assert claim.ci95[0] < claim.effect < claim.ci95[1]


def test_p_is_the_z_tests_and_corrected_over_the_claims_and_without_a_figure_above_zero_is_meant():
    rng = np.random.default_rng(4)
    scores, samples = [0.70, 0.70, 0.72], rng.normal([[0.70], [0.70], [0.72]], 0.005, (3, 100_000))
    made = [
        Contrast(statement="", weights=np.array(weights), paper=paper)
        for weights, paper in (([1, 0, -1], 0.1), ([-1, 0, 1], None), ([1, -1, 0], 0.1))
    ]
    claims = judge(made, scores, samples)
    z = 0.02 / (0.005 * np.sqrt(2))
    assert [claim.p for claim in claims[:2]] == pytest.approx([2 * norm.sf(z)] * 2, rel=0.1)
    assert [claim.p_holm for claim in claims] == holm([claim.p for claim in claims])
    assert [claim.verdict for claim in claims] == ["the reverse", "as the paper", "cannot be told"]
