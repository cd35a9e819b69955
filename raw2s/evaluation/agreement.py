"""How labelers agree and err together, and what a vote among them is worth: what can be known before a student trains.

P items, I labelers. Agreement needs no ground truth; errors do.
"""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def agreement(one: Sequence[Hashable], other: Sequence[Hashable]) -> float:
    """Share of the items to which both gave the same answer; nan where there is no item."""
    return float(np.mean([a == b for a, b in zip(one, other, strict=True)])) if one else float("nan")


def cohen_kappa(one: Sequence[Hashable], other: Sequence[Hashable]) -> float:
    """Agreement beyond what two who answer each as often, but by chance, would have (Cohen, 1960): 1 is all, 0 is chance.

    nan where chance alone gives full agreement, or there is no item.
    """
    first, second = Counter(one), Counter(other)
    chance = sum(first[answer] * second[answer] for answer in first) / max(len(one), 1) ** 2
    return (agreement(one, other) - chance) / (1 - chance) if chance < 1 else float("nan")


def error_correlation(wrong_P: NDArray[np.bool_], other_wrong_P: NDArray[np.bool_]) -> float:
    """Phi, the correlation of two labelers' errors: 1 where they err on the same items, 0 where independently.

    It is Matthews' coefficient of the two. nan where one of them is always or never wrong.
    """
    a_P, b_P = wrong_P - np.mean(wrong_P), other_wrong_P - np.mean(other_wrong_P)
    spread = float(np.sqrt((a_P**2).sum() * (b_P**2).sum()))
    return float(a_P @ b_P) / spread if spread > 0 else float("nan")


def vote_shares(answers: Sequence[Sequence[Hashable]]) -> Floats:
    """(I, P): which labeler's answer a plurality vote takes; a column sums to 1. `answers` are the labelers', item by item.

    Answers with equally many votes share the item, as drawing among them would in the mean. Of several who gave an answer the first
    stands for it.
    """
    shares_IP = np.zeros((len(answers), len(answers[0])))
    for item, own in enumerate(zip(*answers, strict=True)):
        votes = Counter(own)
        most = max(votes.values())
        leading = [answer for answer, count in votes.items() if count == most]
        for answer in leading:
            shares_IP[own.index(answer), item] = 1 / len(leading)
    return shares_IP


def best_of_each(item_N: Sequence[int], value_N: Floats) -> list[int]:
    """Of every item's candidates the place of the one of largest value, of equals the first; items in the order they appear."""
    best: dict[int, int] = {}
    for place, item in enumerate(item_N):
        if item not in best or value_N[place] > value_N[best[item]]:
            best[item] = place
    return list(best.values())
