"""Teacher weights from labeled data: the mixture of the teachers' probabilities that explains it best."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TINY = 1e-12
"""A probability of 0 for what did happen counts as this: one sure mistake must not forbid a teacher."""


def mixture_weights(
    likelihood_IP: NDArray[np.float64], *, tolerance: float = 1e-9, iterations: int = 10_000
) -> NDArray[np.float64]:
    """(I,) weights on the simplex that maximize Σ_p log Σ_i w_i p⁽ⁱ⁾, each teacher's probability of what was true; from uniform, by EM.

    The negated sum is convex in the weights, and EM for the proportions of a mixture (Dempster, Laird and Rubin, 1977, section 4.3)
    never raises it. Stops when a step lowers the mean NLL by less than `tolerance`. Raises ValueError where there is no item.
    """
    teachers, items = likelihood_IP.shape
    if not items:
        raise ValueError("no item to fit weights on; give at least one")
    likelihood_IP = np.maximum(likelihood_IP, TINY)
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


def fit_weights(probabilities_IPK: NDArray[np.float64], labels_P: NDArray[np.int64]) -> NDArray[np.float64]:
    """(I,) `mixture_weights` of classes: an item's likelihood is a teacher's probability of its label.

    Raises ValueError for arrays that do not fit each other or hold no item.
    """
    items = probabilities_IPK.shape[1]
    if len(labels_P) != items or not items:
        raise ValueError(f"{items} items and {len(labels_P)} labels; give one label an item, at least one")
    return mixture_weights(probabilities_IPK[:, np.arange(items), labels_P])


def word_likelihoods(words_I: Sequence[Sequence[Sequence[float]]]) -> NDArray[np.float64]:
    """(I, W) every teacher's probability of every word of the true texts, from its word log-probabilities text by text.

    An item of a mixture over texts is a word, end marker included, given the true words before it. Words are the same for all
    teachers, where the number of pieces, and with it the mean over pieces, is each tokenizer's own; and a word is to a text what an
    item is to classes: what the losses weigh (Eq. 4 over tokens). Of whole texts the probabilities differ by so many orders of
    magnitude that each text has one winner, and one surprising word would decide it.
    """
    return np.exp([[logprob for text in own for logprob in text] for own in words_I])
