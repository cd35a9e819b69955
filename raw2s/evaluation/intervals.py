"""How far a score, a gap or a PGR would move with other test utterances: paired bootstrap and sign test.

The spread is that of the test set; over several training seeds `crossed_bootstrap` holds theirs too.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raw2s.evaluation.gap import gap_recovered

Samples = NDArray[np.float64]
"""(resamples,): a system's score on each resampled test set."""
AT_ONCE = 2**22
"""Weights of utterances in resampled test sets that exist at a time: 32 MiB."""
ROUNDING = 1e-9
"""Scores of an utterance that differ by less are the same: means over seeds in another order."""


def paired_bootstrap(
    statistic_inputs: Mapping[str, NDArray[np.float64]],
    score: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Samples]:
    """Every system's score on the same `resamples` test sets, drawn with replacement from the utterances (Efron, 1979).

    `statistic_inputs` holds each system's per-utterance values: (utterances, 3) counts, or (utterances,) correctness. `score`
    maps their mean over a resampled test set to the score: (resamples, 3) or (resamples,) -> (resamples,). So `f1_of_counts`
    for SLU-F1, and the identity for accuracy.

    Raises ValueError when the systems do not hold the same number of utterances, or hold none.
    """
    lengths = {name: len(values) for name, values in statistic_inputs.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(
            f"A paired bootstrap needs the same utterances, at least one, in every system; there are {lengths}. "
            "Score every system on the same test set."
        )
    (utterances,) = set(lengths.values())
    rng, rows = np.random.default_rng(seed), max(1, AT_ONCE // utterances)
    found = []
    for start in range(0, resamples, rows):
        # One matrix product per system, where scipy.stats.bootstrap would copy all its values.
        weights_RU = _drawn(rng, utterances, min(rows, resamples - start)) / utterances
        found.append({name: score(weights_RU @ values) for name, values in statistic_inputs.items()})
    return {name: np.concatenate([own[name] for own in found]) for name in statistic_inputs}


def drawn_utterances(count: int, *, resamples: int = 1000, seed: int = 0) -> NDArray[np.int64]:
    """(resamples, count): how often each utterance is in a resampled test set, the same that `paired_bootstrap` draws.

    Fewer are the first of more.
    """
    return _drawn(np.random.default_rng(seed), count, resamples)


def _drawn(rng: np.random.Generator, count: int, resamples: int) -> NDArray[np.int64]:
    return rng.multinomial(count, np.full(count, 1 / count), size=resamples)


def crossed_bootstrap(
    statistic_inputs: Mapping[str, Sequence[NDArray[np.float64]]],
    score: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Samples]:
    """Every system's mean score over training seeds, with test utterances and seeds both drawn with replacement (Owen, 2007).

    `statistic_inputs` holds for each system one array a seed, in the same order for all, as `paired_bootstrap` takes it. A resample
    draws the same utterances and the same seeds for all systems, so that differences are paired in both. Of few seeds the spread
    between seeds comes out too small, by (S - 1) / S in variance.
    Raises ValueError when systems differ in the number of seeds or utterances, or have none.
    """
    seeds = {name: len(arrays) for name, arrays in statistic_inputs.items()}
    if len(set(seeds.values())) != 1 or 0 in seeds.values():
        raise ValueError(f"Every system needs the same training seeds, at least one; there are {seeds}. Train all with the same.")
    (count,) = set(seeds.values())
    flat = {f"{name}/{s}": values for name, arrays in statistic_inputs.items() for s, values in enumerate(arrays)}
    samples = paired_bootstrap(flat, score, resamples=resamples, seed=seed)
    weights_RS = drawn_seeds(count, resamples=resamples, seed=seed)
    return {name: over_seeds(weights_RS, [samples[f"{name}/{s}"] for s in range(count)]) for name in statistic_inputs}


def over_seeds(weights_RS: Samples, samples: Sequence[Samples]) -> Samples:
    """(resamples,): of each resample the mean over the seeds as `drawn_seeds` drew them; `samples` holds a seed each."""
    return np.einsum("RS,SR->R", weights_RS, samples)


def drawn_seeds(count: int, *, resamples: int = 1000, seed: int = 0) -> Samples:
    """(resamples, count): each training seed's weight in a resample, the times that it was drawn by their number.

    Fewer are the first of more.
    """
    rng = np.random.default_rng([seed, 1])  # not the utterances'
    return rng.multinomial(count, np.full(count, 1 / count), size=resamples) / count


def standard_error(values: NDArray[np.float64], score: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> float:
    """How far one system's score would move with other utterances: the spread of its `paired_bootstrap`, on the score's scale.

    Of 200 resamples, which Efron and Tibshirani (1993, 6.4) find enough for a standard error. Undefined ones are left out; nan where
    fewer than two are left. Raises ValueError when there is no utterance.
    """
    samples = paired_bootstrap({"system": values}, score, resamples=200)["system"]
    defined = samples[~np.isnan(samples)]
    return float(defined.std(ddof=1)) if len(defined) > 1 else math.nan


def interval(samples: Samples, level: float = 0.95) -> tuple[float, float]:
    """The central `level` of the samples, by percentiles; undefined samples (nan) are left out.

    (nan, nan) when more than half of the samples are undefined.
    """
    if np.isnan(samples).mean() > 0.5:
        return math.nan, math.nan
    low, high = np.nanquantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def defined(value: float) -> float | None:
    """NaN or infinite, as an undefined score, PGR or loss is, as None: JSON has neither."""
    return value if math.isfinite(value) else None


def defined_interval(samples: Samples) -> tuple[float | None, float | None]:
    """`interval` of the samples that are numbers; None where more than half are none."""
    low, high = interval(np.where(np.isfinite(samples), samples, np.nan))
    return defined(low), defined(high)


def gap_recovered_interval(
    student_samples: Samples, weak_samples: Sequence[Samples], strong_samples: Samples
) -> tuple[float, float]:
    """95 % interval of the PGR (Eq. 13) from samples of one `paired_bootstrap`; `weak_samples` holds one array per teacher.

    Where it excludes resamples without a gap it flatters: read it with `gap_is_noise`.
    """
    return interval(gap_recovered(student_samples, np.atleast_2d(weak_samples), strong_samples))


def gap_is_noise(weak_samples: Samples | Sequence[Samples], strong_samples: Samples) -> bool:
    """True when the 95 % interval of strong - weak reaches 0 or below, for any teacher: a PGR over that gap means nothing.

    `weak_samples` is one teacher's (resamples,) or one array per teacher, from the same `paired_bootstrap` as the ceiling's.
    """
    return any(not interval(strong_samples - weak)[0] > 0 for weak in np.atleast_2d(weak_samples))


def sign_test(correct_a: ArrayLike, correct_b: ArrayLike) -> float:
    """Two-sided p-value of the binomial sign test that two systems are alike.

    Half of it is the paper's one-sided p-test (section 6.1) that the better one is better; of correctness it is McNemar's exact test.
    Both are (utterances,): correctness, or any per-utterance score such as the F1 of the utterance. Utterances on which the
    systems score the same, to rounding, decide nothing and are dropped; 1 when none is left.

    Raises ValueError when the two do not hold the same utterances.
    """
    a_U, b_U = np.asarray(correct_a, dtype=np.float64), np.asarray(correct_b, dtype=np.float64)
    if a_U.shape != b_U.shape:
        raise ValueError(f"The systems' scores have shapes {a_U.shape} and {b_U.shape}. Score both on the same utterances.")
    from scipy.stats import binomtest  # most of a second, which a config has no use for  # noqa: PLC0415

    difference_U = a_U - b_U
    wins, losses = int((difference_U > ROUNDING).sum()), int((difference_U < -ROUNDING).sum())
    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
