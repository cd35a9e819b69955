import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import softmax

from raw2s.labels.weights import fit_weights, mixture_weights, word_likelihoods


def nll(weights, probabilities, labels):
    return -np.log(np.tensordot(weights, probabilities, axes=1)[np.arange(len(labels)), labels]).mean()


def drawn(seed, teachers, items=150, classes=3):
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=items)
    skill = random.uniform(0, 3, size=teachers)
    logits = random.normal(size=(teachers, items, classes)) + skill[:, None, None] * np.eye(classes)[labels]
    return softmax(logits, axis=2), labels


@given(st.integers(0, 10_000), st.integers(1, 4))
def test_the_weights_are_those_of_a_general_solver(seed, teachers):
    probabilities, labels = drawn(seed, teachers)
    weights = fit_weights(probabilities, labels)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    start = np.full(teachers, 1 / teachers)
    solved = minimize(
        nll, start, (probabilities, labels), method="SLSQP", bounds=[(0, 1)] * teachers,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
    )  # fmt: skip
    assert nll(weights, probabilities, labels) <= solved.fun + 1e-5
    assert nll(weights, probabilities, labels) <= nll(start, probabilities, labels) + 1e-12


def likelihoods(seed, teachers, items=40):
    """Of any scale, from a class's to a whole text's."""
    return np.exp(np.random.default_rng(seed).normal(-3, 3, size=(teachers, items)))


def mixture_nll(weights, likelihood):
    return -np.log(weights @ np.maximum(likelihood, 1e-12)).mean()


@given(st.integers(0, 10_000))
def test_no_weights_of_a_grid_are_likelier(seed):
    likelihood = likelihoods(seed, 3)
    grid = [np.array([a, b, 100 - a - b]) / 100 for a in range(101) for b in range(101 - a)]
    best = min(mixture_nll(weights, likelihood) for weights in grid)
    assert mixture_nll(mixture_weights(likelihood), likelihood) <= best + 1e-5


@given(st.integers(0, 10_000), st.integers(1, 5))
def test_no_step_lowers_the_likelihood_or_leaves_the_simplex(seed, teachers):
    likelihood = likelihoods(seed, teachers)
    steps = [mixture_weights(likelihood, iterations=n) for n in range(12)]
    assert all(weights.min() >= 0 and weights.sum() == pytest.approx(1) for weights in steps)
    path = [mixture_nll(weights, likelihood) for weights in steps]
    assert all(after <= before + 1e-12 for before, after in itertools.pairwise(path))


@given(st.integers(0, 10_000), st.integers(2, 4), st.floats(1.5, 100))
def test_a_teacher_that_is_always_better_takes_all(seed, teachers, times):
    likelihood = likelihoods(seed, teachers)
    likelihood[-1] = likelihood.max(axis=0) * times
    assert mixture_weights(np.maximum(likelihood, 1e-9))[-1] == pytest.approx(1, abs=1e-3)


def test_the_items_of_texts_are_their_words():
    """Two texts of two words and of one, each with its end marker."""
    told = [[[-1.0, -2.0, 0.0], [-3.0, -4.0]], [[0.0, 0.0, -1.0], [-1.0, 0.0]]]
    assert np.log(word_likelihoods(told)).tolist() == [[-1, -2, 0, -3, -4], [0, 0, -1, -1, 0]]


def test_a_teacher_at_chance_gets_no_weight_beside_a_good_one():
    labels = np.tile([0, 1], 100)
    good = np.where(np.eye(2)[labels] > 0, 0.9, 0.1)
    assert fit_weights(np.stack([np.full((200, 2), 0.5), good]), labels) == pytest.approx([0, 1], abs=1e-3)


def test_equals_share_and_sure_mistakes_stay_finite():
    labels = np.array([0, 1])
    twins = np.tile([[0.7, 0.3], [0.4, 0.6]], (2, 1, 1))
    assert fit_weights(twins, labels) == pytest.approx([0.5, 0.5])
    wrong = np.array([[[0.0, 1.0], [1.0, 0.0]], [[0.5, 0.5], [0.5, 0.5]]])
    assert fit_weights(wrong, labels) == pytest.approx([0, 1], abs=1e-6)


@pytest.mark.parametrize(("items", "labels"), [(0, 0), (3, 2)])
def test_labels_that_do_not_fit_are_refused(items, labels):
    with pytest.raises(ValueError, match="one label an item"):
        fit_weights(np.full((2, items, 2), 0.5), np.zeros(labels, dtype=int))


def test_weights_of_no_word_are_refused():
    with pytest.raises(ValueError, match="give at least one"):
        mixture_weights(word_likelihoods([[], []]))
