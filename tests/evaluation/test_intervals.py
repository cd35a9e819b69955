import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from raw2s.evaluation import (
    crossed_bootstrap,
    drawn_seeds,
    drawn_utterances,
    f1_of_counts,
    gap_is_noise,
    gap_recovered_interval,
    interval,
    paired_bootstrap,
    performance_gap_recovered,
    sign_test,
    standard_error,
)

UTTERANCES = 400


def accuracy(mean):
    return mean


def correctness(share, seed=0):
    """Nested systems: what a weaker one gets right, a stronger one of the same seed gets right too."""
    return (np.random.default_rng(seed).random(UTTERANCES) < share).astype(float)


def counts():
    rng = np.random.default_rng(1)
    return np.stack([rng.integers(0, 5, UTTERANCES), rng.random(UTTERANCES), rng.random(UTTERANCES)], axis=1)


def test_identical_systems_get_identical_samples():
    samples = paired_bootstrap({"a": counts(), "b": counts()}, f1_of_counts, resamples=50)
    np.testing.assert_array_equal(samples["a"], samples["b"])
    assert np.ptp(samples["a"]) > 0


def test_the_seed_decides_the_samples():
    first, again = (paired_bootstrap({"a": counts()}, f1_of_counts, resamples=50, seed=3)["a"] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, paired_bootstrap({"a": counts()}, f1_of_counts, resamples=50, seed=4)["a"])


def test_samples_are_those_of_resampled_utterances():
    # With two utterances a resample is (first twice, one each, second twice) with probabilities 1/4, 1/2, 1/4.
    samples = paired_bootstrap({"a": np.array([[2.0, 0, 0], [1, 1, 1]])}, f1_of_counts, resamples=4000)["a"]
    values, times = np.unique(samples.round(12), return_counts=True)
    np.testing.assert_allclose(values, [1 / 2, 3 / 4, 1])
    np.testing.assert_allclose(times / 4000, [1 / 4, 1 / 2, 1 / 4], atol=0.04)


def test_resamples_drawn_in_parts_are_those_drawn_at_once_and_fewer_are_the_first_of_more(monkeypatch):
    counts = np.random.default_rng(3).random((40, 3))
    inputs = {"system": counts}
    whole = paired_bootstrap(inputs, f1_of_counts, resamples=50)["system"]
    monkeypatch.setattr("raw2s.evaluation.intervals.AT_ONCE", 7 * len(counts))
    np.testing.assert_allclose(paired_bootstrap(inputs, f1_of_counts, resamples=50)["system"], whole, rtol=1e-12)
    np.testing.assert_allclose(paired_bootstrap(inputs, f1_of_counts, resamples=20)["system"], whole[:20], rtol=1e-12)
    np.testing.assert_array_equal(drawn_utterances(40, resamples=20), drawn_utterances(40, resamples=50)[:20])
    np.testing.assert_array_equal(drawn_seeds(3, resamples=20), drawn_seeds(3, resamples=50)[:20])


def test_spread_of_an_accuracy_is_the_binomial_one():
    correct = correctness(0.7)
    samples = paired_bootstrap({"a": correct}, accuracy, resamples=2000)["a"]
    assert samples.shape == (2000,)
    assert samples.std() == pytest.approx(math.sqrt(correct.mean() * (1 - correct.mean()) / UTTERANCES), rel=0.1)
    low, high = interval(samples)
    assert low < correct.mean() < high


def test_pairing_removes_the_spread_systems_share():
    correct = correctness(0.7)
    worse = correct.copy()
    worse[np.flatnonzero(correct)[:10]] = 0
    samples = paired_bootstrap({"a": correct, "b": worse}, accuracy)
    assert (samples["a"] - samples["b"]).std() < samples["a"].std() / 2


@pytest.mark.parametrize(
    "inputs", [{}, {"a": np.ones(3), "b": np.ones(4)}, {"a": np.ones((0, 3))}], ids=["no system", "lengths", "no utterance"]
)
def test_systems_on_other_utterances_are_refused(inputs):
    with pytest.raises(ValueError, match="same test set"):
        paired_bootstrap(inputs, accuracy)


def test_seeds_and_utterances_are_both_drawn():
    # One utterance, a seed that is right and one that is wrong: a resample has the right one not at all, once or twice.
    right, wrong = np.ones(1), np.zeros(1)
    samples = crossed_bootstrap({"a": [right, wrong]}, accuracy, resamples=4000)["a"]
    values, times = np.unique(samples, return_counts=True)
    assert values.tolist() == [0, 0.5, 1]
    np.testing.assert_allclose(times / 4000, [1 / 4, 1 / 2, 1 / 4], atol=0.04)
    # Two utterances too, each seed right on another one: both draws must hit. Seed 1 twice (1/4): its share of right is 0, 1/2 or 1.
    crossed = crossed_bootstrap({"a": [np.array([1.0, 0]), np.array([0.0, 1])]}, accuracy, resamples=8000)["a"]
    values, times = np.unique(crossed, return_counts=True)
    assert values.tolist() == [0, 0.5, 1]
    np.testing.assert_allclose(times / 8000, [1 / 8, 3 / 4, 1 / 8], atol=0.02)


def test_equal_seeds_leave_the_spread_of_the_utterances():
    own = correctness(0.7)
    crossed = crossed_bootstrap({"a": [own, own]}, accuracy)["a"]
    np.testing.assert_allclose(crossed, paired_bootstrap({"a": own}, accuracy)["a"])


def test_differences_are_paired_over_seeds():
    # One system is better by the same on every seed, whatever the seed does to both: their difference has no spread.
    seeds = [correctness(share) for share in (0.4, 0.8)]
    better = [np.append(own[:-40], np.ones(40)) for own in seeds]
    worse = [np.append(own[:-40], np.zeros(40)) for own in seeds]
    samples = crossed_bootstrap({"a": better, "b": worse}, accuracy)
    assert samples["a"].std() > 0.1 and (samples["a"] - samples["b"]).std() < 0.02


@pytest.mark.parametrize(
    "inputs", [{}, {"a": [np.ones(3)], "b": [np.ones(3)] * 2}, {"a": []}], ids=["no system", "seeds", "no seed"]
)
def test_systems_of_other_seeds_are_refused(inputs):
    with pytest.raises(ValueError, match="same training seeds"):
        crossed_bootstrap(inputs, accuracy)


def test_interval_is_percentiles_without_the_undefined():
    samples = np.append(np.arange(1001.0), [math.nan] * 1001)
    assert interval(samples) == pytest.approx((25, 975))
    assert interval(samples, level=0.5) == pytest.approx((250, 750))
    assert all(math.isnan(bound) for bound in interval(np.append(samples, math.nan)))


def test_interval_of_the_gap_recovered_contains_it():
    shares = {"weak": 0.5, "other": 0.55, "student": 0.7, "strong": 0.9}
    correct = {name: correctness(share) for name, share in shares.items()}
    samples = paired_bootstrap(correct, accuracy)
    low, high = gap_recovered_interval(samples["student"], [samples["weak"], samples["other"]], samples["strong"])
    score = {name: values.mean() for name, values in correct.items()}
    assert low < performance_gap_recovered(score["student"], [score["weak"], score["other"]], score["strong"]) < high
    assert high - low < 0.3


def test_interval_of_the_gap_recovered_is_undefined_without_a_gap():
    samples = paired_bootstrap({"weak": correctness(0.9), "strong": correctness(0.5)}, accuracy)
    assert all(math.isnan(bound) for bound in gap_recovered_interval(samples["weak"], [samples["weak"]], samples["strong"]))


def test_gap_is_noise():
    shares = {"weak": 0.5, "near": 0.9, "strong": 0.9}
    samples = paired_bootstrap({name: correctness(share, seed) for seed, (name, share) in enumerate(shares.items())}, accuracy)
    assert not gap_is_noise(samples["weak"], samples["strong"])
    assert gap_is_noise(samples["strong"], samples["weak"])  # surely negative
    assert gap_is_noise(samples["near"], samples["strong"])
    assert gap_is_noise(samples["strong"], samples["strong"])
    assert gap_is_noise([samples["weak"], samples["near"]], samples["strong"])  # one such teacher is enough
    assert gap_is_noise(samples["weak"], np.full(1000, math.nan))


@given(wins=st.integers(0, 60), losses=st.integers(0, 60), ties=st.integers(0, 20))
def test_sign_test_is_both_tails_of_the_binomial_which_of_correctness_is_mcnemars_exact_test(wins, losses, ties):
    a = np.repeat([1, 0, 1], [wins, losses, ties])
    b = np.repeat([0, 1, 1], [wins, losses, ties])
    # McNemar (1947) as statsmodels.stats.contingency_tables.mcnemar(exact=True) has it: of the discordant, twice the smaller tail.
    assert sign_test(a, b) == pytest.approx(min(1.0, 2 * binom.cdf(min(wins, losses), wins + losses, 0.5)))
    assert sign_test(a, b) == sign_test(b, a)


def test_half_of_it_is_the_papers_one_sided_test():
    a, b = np.repeat([1, 0], [15, 5]), np.repeat([0, 1], [15, 5])
    assert sign_test(a, b) / 2 == pytest.approx(binom.sf(14, 20, 0.5))  # 15 wins or more of 20


def test_means_over_seeds_in_another_order_are_a_tie():
    a, b = np.array([0.1, 0.2, 0.3]), np.array([0.3, 0.2, 0.1])
    assert a.sum() != b.sum()
    assert sign_test([a.mean()], [b.mean()]) == 1.0


def test_sign_test_reads_only_the_sign():
    a, b = np.array([0.9, 0.8, 0.7, 0.2]), np.array([0.1, 0.7, 0.69, 0.3])
    assert sign_test(a, b) == sign_test(np.sign(a - b), np.zeros(4))
    with pytest.raises(ValueError, match="same utterances"):
        sign_test(a, b[:1])


def test_the_standard_error_of_accuracy_is_that_of_a_share():
    for share in (0.1, 0.5, 0.9):
        correct = correctness(share, seed=5)  # another seed than the resamples
        p = correct.mean()
        assert standard_error(correct, accuracy) == pytest.approx(math.sqrt(p * (1 - p) / UTTERANCES), rel=0.2)
    assert standard_error(np.ones(UTTERANCES), accuracy) == pytest.approx(0, abs=1e-12)


def test_an_undefined_resample_is_in_no_standard_error():
    found = standard_error(correctness(0.5), lambda mean: np.where(mean > 0.5, mean, np.nan))
    assert 0 < found < standard_error(correctness(0.5), accuracy)
