"""Which differences between systems are more than noise: p-values of a bootstrap, corrected for their number, and what can be seen."""

import math
from collections.abc import Sequence

import numpy as np

from raw2s.evaluation.intervals import Samples

COUNTED = 10
"""Resamples on the other side of 0 whose share is a p-value; of fewer, one more or less would turn a verdict after correction."""
SEEN = 1.96 + 0.84
"""Standard errors of a true difference that a two-sided test at 5 % finds in four of five such experiments (Cohen, 1988, section 1.5)."""


def p_of_difference(difference_samples: Samples) -> float:
    """Two-sided p-value of no difference, from samples of one (paired or crossed) bootstrap: one system's less the other's.

    Twice the smaller share of samples on the other side of 0 or on it (Davison and Hinkley, 1997, section 4.4, with their +1), at most
    1. Where fewer than `COUNTED` are there, what a normal distribution of the samples' mean and spread has there, at most the share
    of `COUNTED`: a share of so few is chance, and of none it is 2 / (1 + samples), which no correction for some dozens of differences
    would leave small. Undefined samples (nan) count for no difference.
    """
    samples = np.nan_to_num(difference_samples, nan=0.0)
    beyond = int(min((samples <= 0).sum(), (samples >= 0).sum()))
    spread = float(samples.std())
    if beyond >= COUNTED or spread == 0:
        return min(1.0, _share(beyond, len(samples)))
    return min(1.0, _share(COUNTED, len(samples)), math.erfc(abs(float(samples.mean())) / spread / math.sqrt(2)))


def _share(beyond: int, samples: int) -> float:
    return 2 * (1 + beyond) / (1 + samples)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number, in their order (Holm, 1979).

    Calling those below 0.05 real errs anywhere in the table in at most 5 % of tables, whatever the dependence.
    """
    order = np.argsort(p_values, kind="stable")
    steps = np.maximum.accumulate([(len(order) - rank) * p_values[i] for rank, i in enumerate(order)])
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(steps, 1.0)
    return [float(p) for p in corrected]


def visible_difference(difference_samples: Samples) -> float:
    """The smallest true difference that an experiment of this size would find in four of five cases, before any correction."""
    return float(SEEN * np.nanstd(difference_samples, ddof=1))
