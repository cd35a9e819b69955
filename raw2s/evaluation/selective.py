"""How well a measure of doubt tells a model's errors from its right answers, and what is gained by leaving doubtful answers out.

U examples: `doubt_U` is larger where the model is less certain, `error_U` True where its answer is wrong. Examples of equal doubt
stand in no order: each figure is its mean over all orders of them.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Errors = NDArray[np.bool_]

COVERAGE = 0.8
"""Share of the answers that is kept in `Selected.at_coverage_R`."""
RESAMPLES_AT_ONCE = 100
"""Several arrays of (resamples, examples) exist at a time."""


class Selected(NamedTuple):
    """(R,) each, of R test sets."""

    auroc_R: Floats
    """P(an error is more doubtful than a right answer); 1/2 for a measure that knows nothing, nan without errors or with nothing else."""
    aurc_R: Floats
    """Area under the risk-coverage curve: the mean over k = 1..U of the share of errors in the k most certain answers."""
    at_coverage_R: Floats
    """The score of the most certain `COVERAGE` of the answers."""
    gain_R: Floats
    """By how much that is more than the score of all answers."""


def selected(
    doubt_U: Floats,
    error_U: Errors,
    counts_UC: Floats,
    score: Callable[[Floats], Floats],
    draws_RU: NDArray[np.int64] | None = None,
) -> Selected:
    """AUROC of error, area under the risk-coverage curve (Geifman and El-Yaniv, 2017), and what the certain answers score.

    `counts_UC` and `score` are a metric's (`raw2s.evaluation.metrics`). `draws_RU`: how often each of R resampled test sets holds
    every example (`drawn_utterances`); None for the examples themselves, R = 1. Of examples equally doubtful at the cut each counts
    in part. Raises ValueError for a doubt that is nan.
    """
    if np.isnan(doubt_U).any():
        raise ValueError("a doubt is nan, which is neither more nor less than another; mend the model's logits")
    draws_RU = np.ones((1, len(doubt_U)), dtype=np.int64) if draws_RU is None else draws_RU
    order = np.argsort(doubt_U, kind="stable")
    first_G = np.unique(doubt_U[order], return_index=True)[1]
    group_U = np.repeat(np.arange(len(first_G)), np.diff([*first_G, len(order)]))
    parts = []
    for start in range(0, len(draws_RU), RESAMPLES_AT_ONCE):
        drawn_RU = draws_RU[start : start + RESAMPLES_AT_ONCE, order]
        drawn_RG = np.add.reduceat(drawn_RU, first_G, axis=1)
        wrong_RG = np.add.reduceat(drawn_RU * error_U[order], first_G, axis=1)
        kept_RU = drawn_RU * _kept(drawn_RG)[:, group_U]
        at_coverage_R = score(kept_RU @ counts_UC[order] / kept_RU.sum(axis=1, keepdims=True))
        all_R = score(drawn_RU @ counts_UC[order] / drawn_RU.sum(axis=1, keepdims=True))
        parts.append((_auroc(drawn_RG, wrong_RG), _aurc(drawn_RG, wrong_RG), at_coverage_R, at_coverage_R - all_R))
    return Selected(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def risk_coverage(doubt_U: Floats, error_U: Errors, coverage_N: Floats) -> Floats:
    """Share of errors in the most certain share of the answers, for each coverage in (0, 1]: (N,)."""
    order = np.argsort(doubt_U, kind="stable")
    first_G = np.unique(doubt_U[order], return_index=True)[1]
    ends_G = np.array([0, *first_G[1:], len(order)])
    wrong_G = np.array([0, *np.cumsum(np.add.reduceat(error_U[order].astype(np.int64), first_G))])
    kept_N = coverage_N * len(order)
    return np.interp(kept_N, ends_G, wrong_G) / kept_N


def _before(counts_RG: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many stand in groups of less doubt."""
    return np.cumsum(counts_RG, axis=1) - counts_RG


def _auroc(drawn_RG: NDArray[np.int64], wrong_RG: NDArray[np.int64]) -> Floats:
    right_RG = drawn_RG - wrong_RG
    won_R = (wrong_RG * (_before(right_RG) + right_RG / 2)).sum(axis=1)
    pairs_R = wrong_RG.sum(axis=1) * right_RG.sum(axis=1)
    return np.divide(won_R, pairs_R, out=np.full(len(won_R), np.nan), where=pairs_R > 0)


def _aurc(drawn_RG: NDArray[np.int64], wrong_RG: NDArray[np.int64]) -> Floats:
    """Within a group errors come evenly, e of n; after N answers with E errors its terms sum to e + (E - N e/n) Σ_k 1/(N + k)."""
    total = int(drawn_RG[0].sum())
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, total + 1))])
    before_RG = _before(drawn_RG)
    rate_RG = np.divide(wrong_RG, drawn_RG, out=np.zeros(drawn_RG.shape), where=drawn_RG > 0)
    inverse_RG = harmonic[before_RG + drawn_RG] - harmonic[before_RG]
    return (wrong_RG + (_before(wrong_RG) - before_RG * rate_RG) * inverse_RG).sum(axis=1) / total


def _kept(drawn_RG: NDArray[np.int64]) -> Floats:
    """Which share of each group is among the most certain answers."""
    room_RG = COVERAGE * drawn_RG.sum(axis=1, keepdims=True) - _before(drawn_RG)
    return np.clip(np.divide(room_RG, drawn_RG, out=np.zeros(drawn_RG.shape), where=drawn_RG > 0), 0, 1)
