"""The luck of the choice, over many made-up sweeps whose models' worth is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raw2s.tuning.flattery import flattery

SWEEPS = 4000
NOISE = 0.02


def made_up(trials, spread, *, shared=0.0):
    """Of each sweep its figures and the true shortfall of the best; `shared` of the noise's variance is one for the whole sweep."""
    rng = np.random.default_rng(trials)
    worth = rng.normal(0.6, spread, size=(SWEEPS, trials))
    own, common = rng.normal(size=(SWEEPS, trials)), rng.normal(size=(SWEEPS, 1))
    figures = worth + NOISE * (np.sqrt(1 - shared) * own + np.sqrt(shared) * common)
    best = figures.argmax(axis=1)[:, None]
    return figures, np.take_along_axis(figures - worth, best, axis=1)[:, 0]


def errors_of(figures, true):
    """The mean error of the estimate, that of no shrinkage, and the standard error of both means."""
    estimates = np.array([flattery(row, [NOISE] * len(row)) for row in figures])
    error = estimates - true
    return error.mean(), -true.mean(), error.std() / np.sqrt(SWEEPS)


@pytest.mark.parametrize(("trials", "spread"), [(6, 0.08), (12, 0.04), (30, 0.03)])
def test_the_estimate_is_unbiased_and_no_shrinkage_is_not(trials, spread):
    error, without, noise = errors_of(*made_up(trials, spread))
    assert abs(error) < 3 * noise
    assert abs(without) > 5 * noise


def test_where_all_trials_are_alike_it_stays_a_little_low():
    """A share of at most 1 cuts off what would make up for it."""
    error, without, _ = errors_of(*made_up(12, 0.0))
    assert 0.25 * without < error < 0


def test_noise_that_is_shared_makes_it_an_upper_estimate():
    figures, true = made_up(12, 0.04, shared=0.7)
    error, _, noise = errors_of(figures, true)
    assert error > 3 * noise


figure = st.floats(0, 1)


@given(st.lists(st.tuples(figure, st.floats(0, 0.5)), min_size=3, max_size=9))
def test_it_is_never_negative_nor_below_the_mean(trials):
    figures, errors = zip(*trials, strict=True)
    found = flattery(figures, errors)
    assert 0 <= found <= max(figures) - np.mean(figures) + 1e-12


def test_of_too_few_trials_nothing_is_said_and_without_spread_or_noise_there_is_none():
    assert flattery([0.7], [0.01]) is None
    assert flattery([0.7, 0.6], [0.01, 0.01]) is None
    assert flattery([0.7, 0.7, 0.7], [0.01, 0.01, 0.01]) == pytest.approx(0, abs=1e-12)
    assert flattery([0.7, 0.6, 0.5], [0.0, 0.0, 0.0]) == 0
