import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from raw2s.evaluation import drawn_utterances, f1_of_counts
from raw2s.evaluation.metrics import ACCURACY
from raw2s.evaluation.selective import COVERAGE, risk_coverage, selected

seeds = st.integers(0, 10_000)


def drawn(seed, examples=40, levels=12):
    """Doubts with ties, and errors that are likelier where the doubt is large; at least one of each."""
    random = np.random.default_rng(seed)
    doubt = random.integers(0, levels, size=examples) / levels
    error = random.random(examples) < 0.2 + 0.6 * doubt
    error[:2] = True, False
    return doubt, error


def figures(doubt, error, draws=None):
    counts = 1.0 - error[:, None]
    return selected(doubt, error, counts, ACCURACY.score, draws)


@given(seeds)
def test_auroc_is_scikit_learns_on_every_resample(seed):
    doubt, error = drawn(seed)
    draws = drawn_utterances(len(doubt), resamples=5, seed=seed)
    for auroc, weights in zip(figures(doubt, error, draws).auroc_R, draws, strict=True):
        assert auroc == pytest.approx(roc_auc_score(error, doubt, sample_weight=weights))


@given(seeds)
def test_a_resample_is_the_examples_repeated(seed):
    doubt, error = drawn(seed)
    draws = drawn_utterances(len(doubt), resamples=1, seed=seed)
    again = figures(np.repeat(doubt, draws[0]), np.repeat(error, draws[0]))
    assert np.ravel(figures(doubt, error, draws)) == pytest.approx(np.ravel(again), nan_ok=True)


def test_the_area_is_the_mean_risk_written_as_a_loop_over_all_orders_of_equal_doubts():
    doubt, error = np.array([0.1, 0.4, 0.4, 0.4, 0.9]), np.array([False, True, False, True, True])
    areas, kept = [], []
    for order in itertools.permutations(range(5)):
        if (np.diff(doubt[list(order)]) >= 0).all():
            wrong = error[list(order)]
            areas.append(np.mean([wrong[:k].mean() for k in range(1, 6)]))
            kept.append(1 - wrong[:4].mean())  # 80 % of five
    found = figures(doubt, error)
    assert len(areas) == 6
    assert found.aurc_R == pytest.approx(np.mean(areas))
    assert found.at_coverage_R == pytest.approx(np.mean(kept))
    assert found.gain_R == pytest.approx(np.mean(kept) - 0.4)


@given(seeds)
def test_only_the_order_of_the_doubts_counts(seed):
    doubt, error = drawn(seed)
    assert np.ravel(figures(np.exp(3 * doubt) - 7, error)) == pytest.approx(np.ravel(figures(doubt, error)))
    assert figures(-doubt, error).auroc_R == pytest.approx(1 - figures(doubt, error).auroc_R)


@given(seeds)
def test_no_doubt_beats_the_oracles(seed):
    doubt, error = drawn(seed)
    oracle, own = figures(error.astype(float), error), figures(doubt, error)
    wrong, examples = error.sum(), len(error)
    assert oracle.auroc_R == 1
    # All that is right comes first; then the k-th answer brings one more error.
    ranks = np.arange(1, examples + 1)
    assert figures(error + np.linspace(0, 0.5, examples), error).aurc_R == pytest.approx(
        np.mean(np.maximum(0, ranks - (examples - wrong)) / ranks)
    )
    assert oracle.aurc_R <= own.aurc_R + 1e-12
    assert oracle.at_coverage_R >= own.at_coverage_R - 1e-12


@given(seeds)
def test_a_doubt_that_is_always_the_same_knows_nothing(seed):
    _, error = drawn(seed)
    found = figures(np.zeros(len(error)), error)
    assert found.auroc_R == 0.5
    assert found.aurc_R == pytest.approx(error.mean())
    assert found.at_coverage_R == pytest.approx(1 - error.mean())
    assert found.gain_R == pytest.approx(0)


def test_without_errors_or_with_nothing_else_the_auroc_is_undefined():
    doubt = np.array([0.1, 0.2])
    for error in (np.array([False, False]), np.array([True, True])):
        assert np.isnan(figures(doubt, error).auroc_R).all()


def test_the_score_of_the_certain_is_any_metrics():
    random = np.random.default_rng(0)
    counts, doubt = random.integers(0, 3, size=(10, 3)).astype(float), random.permutation(10) / 10
    certain = np.argsort(doubt)[: int(COVERAGE * 10)]
    found = selected(doubt, counts[:, 1] > 0, counts, f1_of_counts)
    assert found.at_coverage_R[0] == pytest.approx(f1_of_counts(counts[certain].mean(axis=0)))


@given(seeds)
def test_the_curve_ends_at_the_error_rate_and_its_mean_is_the_area(seed):
    doubt, error = drawn(seed)
    every = np.arange(1, len(doubt) + 1) / len(doubt)
    risk = risk_coverage(doubt, error, every)
    assert risk[-1] == pytest.approx(error.mean())
    assert risk.mean() == pytest.approx(figures(doubt, error).aurc_R[0])


def test_a_doubt_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="nan"):
        figures(np.array([0.1, np.nan]), np.array([True, False]))
