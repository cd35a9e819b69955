"""How much of the best trial's figure is luck of the choice: regression to the mean, estimated by empirical Bayes.

Efron and Morris (1973), Stein's estimation rule and its competitors; Efron (2011), Tweedie's formula and selection bias.
"""

from collections.abc import Sequence

import numpy as np


def flattery(figures: Sequence[float], standard_errors: Sequence[float]) -> float | None:
    """By how much the highest of N figures is expected to lie above what its model is worth; None of fewer than three.

    A figure is y = θ + noise, θ ~ Normal(mean, τ²) over the trials, and the noise's variance s² is the mean of the squared standard
    errors. Then E[θ | y] = mean + τ² / (τ² + s²) (y - mean), of which the best falls short by s² / (τ² + s²) (y - mean). The figures'
    own variance V estimates τ² + s², and (N - 2) / (N - 1) s² / V makes the expected shortfall right for any N: E[√V] / E[1 / √V]
    is (τ² + s²) (N - 2) / (N - 1). The share is at most 1, for τ² is not negative.

    An upper estimate: trials judged on the same examples share noise, which moves them alike and chooses none. A few trials that did
    not learn make V larger and the estimate smaller.
    """
    count = len(figures)
    if count < 3:
        return None
    variance, noise = float(np.var(figures, ddof=1)), float(np.mean(np.square(standard_errors)))
    share = min(1.0, (count - 2) / (count - 1) * noise / variance) if variance > 0 else 0.0
    return share * max(0.0, max(figures) - float(np.mean(figures)))  # the mean of equal numbers may round above them
