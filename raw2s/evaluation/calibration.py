"""Whether class probabilities mean what they say, and the one number that mends most of it.

P items, K classes; `labels_P` are class indices.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

LARGEST_LOG_TEMPERATURE = 5.0
"""Temperatures lie within e^-5 and e^5: a model without a mistake would want 0, one that knows nothing infinity."""


def negative_log_likelihood(probabilities_PK: Floats, labels_P: Labels) -> float:
    """Mean of -log p(label), in nats; inf where a label had probability 0."""
    with np.errstate(divide="ignore"):
        return float(-np.log(_of_labels(probabilities_PK, labels_P)).mean())


def brier_score(probabilities_PK: Floats, labels_P: Labels) -> float:
    """Mean over the items of the squared error summed over the classes, in [0, 2] (Brier, 1950)."""
    square_P = (probabilities_PK**2).sum(axis=1)
    return float((square_P - 2 * _of_labels(probabilities_PK, labels_P) + 1).mean())


def expected_calibration_error(probabilities_PK: Floats, labels_P: Labels, bins: int = 15) -> float:
    """Mean distance of accuracy and confidence over bins of equal width of the largest probability (Guo et al., 2017)."""
    confidence_P = probabilities_PK.max(axis=1)
    correct_P = probabilities_PK.argmax(axis=1) == labels_P
    bin_P = np.clip(np.ceil(confidence_P * bins).astype(int) - 1, 0, bins - 1)
    gap_B = np.bincount(bin_P, weights=correct_P - confidence_P, minlength=bins)
    return float(np.abs(gap_B).sum() / len(labels_P))


def fit_temperature(logits_PK: Floats, labels_P: Labels) -> float:
    """T that minimises the NLL of softmax(logits / T) on the labels (Guo et al., 2017); convex in 1/T, so it is the only one.

    The order of the classes stays. T > 1: the model was too sure.
    """

    def nll(log_temperature: float) -> float:
        return float(-_of_labels(log_softmax(logits_PK / np.exp(log_temperature), axis=1), labels_P).mean())

    bounds = (-LARGEST_LOG_TEMPERATURE, LARGEST_LOG_TEMPERATURE)
    return float(np.exp(minimize_scalar(nll, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))


def calibration_metrics(logits_PK: Floats, labels_P: Labels, temperature: float = 1.0) -> dict[str, float]:
    """NLL, Brier score and expected calibration error of softmax(logits / temperature)."""
    probabilities_PK = softmax(logits_PK / temperature, axis=1)
    return {
        "nll": negative_log_likelihood(probabilities_PK, labels_P),
        "brier": brier_score(probabilities_PK, labels_P),
        "ece": expected_calibration_error(probabilities_PK, labels_P),
    }


def _of_labels(values_PK: Floats, labels_P: Labels) -> Floats:
    return values_PK[np.arange(len(labels_P)), labels_P]
