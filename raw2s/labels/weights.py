"""Teacher weights from labeled data: the mixture of the teachers' class probabilities that explains it best."""

import numpy as np
from numpy.typing import NDArray

TINY = 1e-12
"""A probability of 0 for what did happen counts as this: one sure mistake must not forbid a teacher."""


def fit_weights(
    probabilities_IPK: NDArray[np.float64], labels_P: NDArray[np.int64], *, tolerance: float = 1e-9, iterations: int = 10_000
) -> NDArray[np.float64]:
    """(I,) weights on the simplex that minimise the NLL of Σ_i w_i p⁽ⁱ⁾ on the labels; from uniform, by EM.

    The NLL is convex in the weights, and EM for the proportions of a mixture (Dempster, Laird and Rubin, 1977, section 4.3)
    never raises it. Stops when a step lowers the mean NLL by less than `tolerance`.
    Raises ValueError for arrays that do not fit each other or hold no item.
    """
    teachers, items = probabilities_IPK.shape[:2]
    if len(labels_P) != items or not items:
        raise ValueError(f"{items} items and {len(labels_P)} labels; give one label an item, at least one")
    likelihood_IP = np.maximum(probabilities_IPK[:, np.arange(items), labels_P], TINY)
    weights_I = np.full(teachers, 1 / teachers)
    before = np.inf
    for _ in range(iterations):
        mixed_P = weights_I @ likelihood_IP
        nll = -np.log(mixed_P).mean()
        if before - nll < tolerance:
            break
        before = nll
        weights_I = weights_I * (likelihood_IP / mixed_P).mean(axis=1)
    return weights_I / weights_I.sum()
