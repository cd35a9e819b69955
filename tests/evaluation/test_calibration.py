import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import brier_score_loss, log_loss

from raw2s.evaluation.calibration import (
    brier_score,
    calibration_metrics,
    expected_calibration_error,
    first_choices,
    fit_temperature,
    negative_log_likelihood,
    reliability,
    squared_calibration_error,
)

seeds = st.integers(0, 10_000)


def drawn(seed, items=200, classes=4, temperature=1.0):
    """Logits, and labels drawn from their softmax at `temperature`: the model that is calibrated there and nowhere else."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=2.0, size=(items, classes))
    labels = np.array([random.choice(classes, p=p) for p in softmax(logits / temperature, axis=1)])
    return logits, labels


@given(seeds)
def test_nll_and_brier_are_scikit_learns(seed):
    logits, labels = drawn(seed, items=30)
    probabilities = softmax(logits, axis=1)
    assert negative_log_likelihood(probabilities, labels) == pytest.approx(log_loss(labels, probabilities, labels=range(4)))
    expected = brier_score_loss(labels, probabilities, labels=range(4), scale_by_half=False)
    assert brier_score(probabilities, labels) == pytest.approx(expected)


def test_a_label_of_probability_zero_costs_infinity():
    assert negative_log_likelihood(np.array([[1.0, 0.0]]), np.array([1])) == np.inf
    assert brier_score(np.array([[1.0, 0.0]]), np.array([1])) == 2


@given(seeds, st.integers(1, 20))
def test_ece_is_the_definition_written_as_a_loop(seed, bins):
    logits, labels = drawn(seed, items=40, classes=3)
    probabilities = softmax(logits, axis=1)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    expected = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(probabilities, labels, bins) == pytest.approx(expected)


def test_ece_of_the_sure_and_right_is_0_and_of_the_sure_and_wrong_1():
    sure = np.eye(3)
    assert expected_calibration_error(sure, np.arange(3)) == 0
    assert expected_calibration_error(sure, np.roll(np.arange(3), 1)) == 1


@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_the_temperature_that_the_labels_were_drawn_at_is_found(true):
    logits, labels = drawn(0, items=20_000, temperature=true)
    assert fit_temperature(logits, labels) == pytest.approx(true, rel=0.05)
    before, after = (calibration_metrics(logits, labels, temperature)["ece"] for temperature in (1.0, true))
    assert after < 0.02
    assert true == 1 or before > 0.1


@given(seeds, st.floats(0.2, 5))
def test_no_other_temperature_has_a_smaller_nll(seed, factor):
    logits, labels = drawn(seed)
    best = fit_temperature(logits, labels)
    least = calibration_metrics(logits, labels, best)["nll"]
    assert least <= calibration_metrics(logits, labels, best * factor)["nll"] + 1e-9
    assert fit_temperature(logits * factor, labels) == pytest.approx(best * factor, rel=1e-2)


def test_logits_of_minus_infinity_and_models_without_a_mistake_stay_finite():
    assert np.isfinite(fit_temperature(np.array([[0.0, -np.inf], [-np.inf, 0.0]]), np.array([0, 1])))
    assert fit_temperature(np.array([[3.0, 0.0]]), np.array([0])) < 0.1
    assert fit_temperature(np.array([[3.0, 0.0]]), np.array([1])) > 10


@given(seeds, st.integers(1, 20))
def test_a_reliability_diagram_holds_every_answer_once_by_confidence(seed, bins):
    logits, labels = drawn(seed, items=37)
    confidence, right = first_choices(softmax(logits, axis=1), labels)
    found = reliability(confidence, right, bins)
    counts = [one.answers for one in found]
    assert sum(counts) == 37
    assert max(counts) - min(counts) <= 1
    assert [one.confidence for one in found] == sorted(one.confidence for one in found)
    assert sum(one.answers * one.confidence for one in found) == pytest.approx(confidence.sum())
    assert sum(one.answers * one.accuracy for one in found) == pytest.approx(right.sum())


@pytest.mark.parametrize("gap", [0.0, 0.1])
def test_what_chance_adds_to_the_squared_error_is_taken_off(gap):
    random = np.random.default_rng(0)
    confidence = random.uniform(0.3, 0.8, size=60)
    right = random.random((1000, 60)) < confidence + gap
    found = [squared_calibration_error(reliability(confidence, own)) for own in right]
    assert np.mean(found) == pytest.approx(gap**2, abs=4 * np.std(found) / np.sqrt(len(found)))
    plain = np.mean(
        [sum(b.answers * (b.accuracy - b.confidence) ** 2 for b in reliability(confidence, own)) / 60 for own in right[:100]]
    )
    assert plain > gap**2 + 0.02  # what a diagram of four answers a bin says of a calibrated model
