import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from raw2s.evaluation import paired_bootstrap
from raw2s.evaluation.comparing import COUNTED, holm, p_of_difference, visible_difference


def test_p_of_a_normal_difference_is_that_of_the_z_test():
    samples = np.random.default_rng(0).normal(2.0, 1.0, 200_000)
    assert p_of_difference(samples) == pytest.approx(2 * norm.sf(2.0), rel=0.03)
    assert p_of_difference(-samples) == p_of_difference(samples)


def test_systems_that_are_alike_have_no_p_below_one_and_undefined_samples_speak_for_nobody():
    assert p_of_difference(np.zeros(99)) == 1.0
    assert p_of_difference(np.full(99, np.nan)) == 1.0
    assert p_of_difference(np.ones(99)) == pytest.approx(0.02)  # never 0: 2 (1 + 0) / (1 + 99)


def test_beyond_what_the_samples_can_count_p_is_that_of_the_z_test_and_survives_a_correction():
    samples = np.random.default_rng(0).normal(6.0, 1.0, 1000)
    assert p_of_difference(samples) == p_of_difference(-samples) == pytest.approx(2 * norm.sf(samples.mean() / samples.std()))
    assert holm([p_of_difference(samples)] * 300)[0] < 0.001


@pytest.mark.parametrize("beyond", range(COUNTED))
def test_the_share_of_a_few_resamples_is_no_p(beyond):
    """One of 1,000 that falls on the other side by chance would make .004 of .0001, which times 20 questions is no answer."""
    samples = np.append(np.random.default_rng(1).normal(4.0, 1.0, 10_000 - beyond), np.full(beyond, -0.1))
    assert p_of_difference(samples) == pytest.approx(2 * norm.sf(samples.mean() / samples.std()))


def test_the_share_of_more_is_and_bounds_that_of_fewer():
    beyond = np.append(np.ones(990), np.full(COUNTED, -0.1))
    assert p_of_difference(beyond) == pytest.approx(2 * (1 + COUNTED) / 1001)
    skewed = np.append(np.geomspace(0.01, 100, 999), -0.01)  # a normal distribution would have a fifth beyond 0, the samples one
    assert norm.sf(skewed.mean() / skewed.std()) > 0.2
    assert p_of_difference(skewed) == pytest.approx(2 * (1 + COUNTED) / 1001)


def test_where_there_is_no_difference_five_in_a_hundred_are_below_005():
    rng = np.random.default_rng(7)
    right = (rng.random((400, 2, 150)) < 0.6).astype(float)
    samples = paired_bootstrap({(run, s): right[run, s] for run in range(400) for s in (0, 1)}, lambda mean: mean, seed=3)
    found = [p_of_difference(samples[run, 0] - samples[run, 1]) < 0.05 for run in range(400)]
    assert np.mean(found) == pytest.approx(0.05, abs=0.03)


def test_holm_by_hand():
    # Sorted: 0.01 x 4, 0.02 x 3, 0.03 x 2 raised to the one before it, 0.4 x 1.
    assert holm([0.03, 0.01, 0.4, 0.02]) == pytest.approx([0.06, 0.04, 0.4, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_between_no_correction_and_bonferronis_and_keeps_the_order(p_values):
    corrected = holm(p_values)
    assert all(p <= c <= min(1.0, len(p_values) * p) + 1e-12 for p, c in zip(p_values, corrected, strict=True))
    for (p, c), (q, d) in zip(zip(p_values, corrected, strict=True), zip(p_values[1:], corrected[1:], strict=True), strict=False):
        assert (p <= q) <= (c <= d + 1e-12)


def test_a_difference_of_the_visible_size_is_found_in_four_of_five():
    rng, size = np.random.default_rng(1), 400
    share = 0.6 + 2.8 * np.sqrt(2 * 0.6 * 0.4 / size)
    right = (rng.random((300, 2, size)) < np.array([[share], [0.6]])).astype(float)
    samples = paired_bootstrap({(run, s): right[run, s] for run in range(300) for s in (0, 1)}, lambda mean: mean, seed=5)
    differences = [samples[run, 0] - samples[run, 1] for run in range(300)]
    found = [p_of_difference(difference) < 0.05 for difference in differences]
    visible = [visible_difference(difference) for difference in differences]
    assert np.mean(found) == pytest.approx(0.8, abs=0.08)
    assert np.mean(visible) == pytest.approx(share - 0.6, rel=0.06)
