"""Whether class probabilities mean what they say, and the one number that mends most of it.

P items, K classes; `labels_P` are class indices.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

BINS = 15
LARGEST_LOG_TEMPERATURE = 5.0
"""Temperatures lie within e^-5 and e^5: a model without a mistake would want 0, one that knows nothing infinity."""


def negative_log_likelihood(probabilities_PK: Floats, labels_P: Labels) -> float:
    """Mean of `log_losses`."""
    return float(log_losses(probabilities_PK, labels_P).mean())


def log_losses(probabilities_PK: Floats, labels_P: Labels) -> Floats:
    """-log p(label) of every item, in nats: (P,); inf where a label had probability 0."""
    with np.errstate(divide="ignore"):
        return -np.log(_of_labels(probabilities_PK, labels_P))


def brier_score(probabilities_PK: Floats, labels_P: Labels) -> float:
    """Mean of `squared_errors` (Brier, 1950)."""
    return float(squared_errors(probabilities_PK, labels_P).mean())


def squared_errors(probabilities_PK: Floats, labels_P: Labels) -> Floats:
    """Squared error of every item, summed over the classes, in [0, 2]: (P,)."""
    return (probabilities_PK**2).sum(axis=1) - 2 * _of_labels(probabilities_PK, labels_P) + 1


def expected_calibration_error(probabilities_PK: Floats, labels_P: Labels, bins: int = BINS) -> float:
    """Mean distance of accuracy and confidence over bins of equal width of the largest probability (Guo et al., 2017).

    Of few items it is too large, even for a model that is calibrated: see `squared_calibration_error`.
    """
    return gap_in_bins(*first_choices(probabilities_PK, labels_P), bins)


def gap_in_bins(confidence_P: Floats, correct_P: NDArray[np.bool_], bins: int = BINS) -> float:
    """`expected_calibration_error` of any confidence in an answer."""
    bin_P = np.clip(np.ceil(confidence_P * bins).astype(int) - 1, 0, bins - 1)
    gap_B = np.bincount(bin_P, weights=correct_P - confidence_P, minlength=bins)
    return float(np.abs(gap_B).sum() / len(correct_P))


class Bin(NamedTuple):
    """Of a reliability diagram: how many answers, their mean confidence, the share of them that is right."""

    answers: int
    confidence: float
    accuracy: float


def reliability(confidence_P: Floats, correct_P: NDArray[np.bool_], bins: int = BINS) -> list[Bin]:
    """Bins of as many answers each, by confidence: at most `bins`, at least two answers in each unless there is but one."""
    parts = np.array_split(np.argsort(confidence_P, kind="stable"), max(1, min(bins, len(confidence_P) // 2)))
    return [Bin(len(part), float(confidence_P[part].mean()), float(correct_P[part].mean())) for part in parts]


def squared_calibration_error(bins: list[Bin]) -> float:
    """Mean square over a diagram's answers of accuracy less confidence, without what chance adds to it; it may fall below 0.

    Every bin's square is larger by the variance of its accuracy, estimated and taken off (Bröcker, 2012; Kumar et al., 2019,
    section 5). In bins of equal mass this is the estimate with the least bias in Roelofs et al. (2022).
    """
    total = sum(one.answers for one in bins)
    chance = [one.accuracy * (1 - one.accuracy) / max(1, one.answers - 1) for one in bins]
    squares = [(one.accuracy - one.confidence) ** 2 - variance for one, variance in zip(bins, chance, strict=True)]
    return sum(one.answers * square for one, square in zip(bins, squares, strict=True)) / total


def rms_calibration_error(confidence_P: Floats, correct_P: NDArray[np.bool_]) -> float:
    """The root of `squared_calibration_error`, 0 where that is below it."""
    return math.sqrt(max(0.0, squared_calibration_error(reliability(confidence_P, correct_P))))


def first_choices(probabilities_PK: Floats, labels_P: Labels) -> tuple[Floats, NDArray[np.bool_]]:
    """The largest probability, and whether its class is the label: (P,) each."""
    return probabilities_PK.max(axis=1), probabilities_PK.argmax(axis=1) == labels_P


def fit_temperature(logits_PK: Floats, labels_P: Labels) -> float:
    """T that minimizes the NLL of softmax(logits / T) on the labels (Guo et al., 2017); convex in 1/T, so it is the only one.

    The order of the classes stays. T > 1: the model was too sure.
    """

    def nll(log_temperature: float) -> float:
        return float(-_of_labels(log_softmax(logits_PK / np.exp(log_temperature), axis=1), labels_P).mean())

    bounds = (-LARGEST_LOG_TEMPERATURE, LARGEST_LOG_TEMPERATURE)
    return float(np.exp(minimize_scalar(nll, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))


def calibration_metrics(logits_PK: Floats, labels_P: Labels, temperature: float = 1.0) -> dict[str, float]:
    """NLL, Brier score and calibration error of softmax(logits / temperature).

    `ece` is `expected_calibration_error`, `rms_ce` `rms_calibration_error`.
    """
    probabilities_PK = softmax(logits_PK / temperature, axis=1)
    return {
        "nll": negative_log_likelihood(probabilities_PK, labels_P),
        "brier": brier_score(probabilities_PK, labels_P),
        "ece": expected_calibration_error(probabilities_PK, labels_P),
        "rms_ce": rms_calibration_error(*first_choices(probabilities_PK, labels_P)),
    }


def _of_labels(values_PK: Floats, labels_P: Labels) -> Floats:
    return values_PK[np.arange(len(labels_P)), labels_P]
