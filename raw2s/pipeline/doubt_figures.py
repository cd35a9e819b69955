"""From logits and measures of doubt to the records of results.json: of every student, and of an entry's students as an ensemble."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp, softmax

from raw2s.evaluation.calibration import (
    calibration_metrics,
    first_choices,
    fit_temperature,
    log_losses,
    reliability,
    squared_errors,
)
from raw2s.evaluation.intervals import Samples, interval
from raw2s.evaluation.metrics import Counts, Metric
from raw2s.evaluation.selective import Selected, risk_coverage, selected
from raw2s.losses import EvidenceOf, doubts, log_prediction
from raw2s.results import Calibration, CalibrationError, Doubt, Interval, ReliabilityBin

Values = NDArray[np.float64]

COVERAGES = np.arange(1, 21) / 20
"""Of the risk-coverage curve."""
NAMES = {"choice": "probability"}
"""What results.json calls a measure, where `raw2s.losses.doubt` has another word."""


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """The resampled test sets and seeds of a run, the same for all students."""

    draws_RU: NDArray[np.int64]
    seeds_RS: Samples


@dataclass(frozen=True, kw_only=True)
class Doubtful:
    """One seed's student on the test examples: its doubt by measure, its errors, the metric's counts."""

    doubts: Mapping[str, Values]
    error_U: NDArray[np.bool_]
    counts_UC: Counts


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """One seed's classifier: log-probabilities for test and validation examples, and their classes."""

    log_p_UK: Values
    label_U: NDArray[np.int64]
    log_p_PK: Values
    label_P: NDArray[np.int64]


def class_doubts(logits_UK: Values, evidence: EvidenceOf | None) -> dict[str, Values]:
    """Every measure of a classifier's logits, as results.json calls it: (U,) each."""
    return {NAMES.get(name, name): value.numpy() for name, value in doubts(torch.from_numpy(logits_UK), evidence).items()}


def class_log_prediction(logits_UK: Values, evidence: EvidenceOf | None) -> Values:
    """Log-probabilities of the classes: (U, K)."""
    return np.asarray(log_prediction(torch.from_numpy(logits_UK), evidence).numpy())


def text_doubts(tokens: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, Values]:
    """Every measure of a text's answers from its tokens': the means, and -log P of the whole answer."""
    means = {NAMES.get(name, name): np.array([np.mean(own) for own in answers]) for name, answers in tokens.items()}
    return means | {"sequence_probability": np.array([np.sum(own) for own in tokens["choice"]])}


def disagreement(answers: Sequence[Sequence[Any]]) -> Values:
    """Share of the pairs of teachers whose answers to an example differ: (U,); `answers` are a list a teacher, two at least."""
    pairs = list(combinations(answers, 2))
    return np.mean([[float(one != other) for one, other in zip(a, b, strict=True)] for a, b in pairs], axis=0)


def errors(metric: Metric, gold: Sequence[Any], counts_UC: Counts) -> NDArray[np.bool_]:
    """(U,): whether the metric counts an answer otherwise than gold itself."""
    return np.asarray(~np.isclose(counts_UC, metric.counts(gold, gold)).all(axis=1))


def ensemble_of(members: Sequence[Predicted]) -> tuple[Predicted, dict[str, Values]]:
    """The mean of the members' probabilities, and its doubt; the mutual information is that between prediction and member."""
    first = members[0]
    log_p_UK, log_p_PK = (
        logsumexp(rows, axis=0) - math.log(len(members))
        for rows in ([m.log_p_UK for m in members], [m.log_p_PK for m in members])
    )
    found = class_doubts(log_p_UK, None)
    own = np.mean([class_doubts(m.log_p_UK, None)["entropy"] for m in members], axis=0)
    predicted = Predicted(log_p_UK=log_p_UK, label_U=first.label_U, log_p_PK=log_p_PK, label_P=first.label_P)
    return predicted, found | {"mutual_information": np.maximum(0.0, found["entropy"] - own)}


def doubt_records(seeds: Sequence[Doubtful], score: Any, resampled: Resampled) -> list[Doubt]:
    """A record a measure, from the student of every seed."""
    return [_doubt_record(measure, seeds, score, resampled) for measure in seeds[0].doubts]


def _doubt_record(measure: str, seeds: Sequence[Doubtful], score: Any, resampled: Resampled) -> Doubt:
    given = [(own.doubts[measure], own.error_U, own.counts_UC, score) for own in seeds]
    found = Selected(*np.mean([selected(*own) for own in given], axis=0))
    sampled = zip(*(selected(*own, resampled.draws_RU) for own in given), strict=True)
    auroc, aurc, at_80 = (defined_interval(np.einsum("RS,SR->R", resampled.seeds_RS, values)) for values in sampled)
    return Doubt(
        measure=measure,
        auroc=_finite(float(found.auroc_R[0])),
        auroc_ci95=auroc,
        aurc=float(found.aurc_R[0]),
        aurc_ci95=aurc,
        at_80=float(found.at_coverage_R[0]),
        at_80_ci95=at_80,
        risk=np.mean([risk_coverage(own.doubts[measure], own.error_U, COVERAGES) for own in seeds], axis=0).tolist(),
    )


def calibration_record(seeds: Sequence[Predicted], resampled: Resampled) -> Calibration:
    """Of the students of all seeds; their temperatures are fitted on the validation examples."""
    temperatures = [fit_temperature(own.log_p_PK, own.label_P) for own in seeds]
    choices = [first_choices(np.exp(own.log_p_UK), own.label_U) for own in seeds]
    confidence, right = (np.concatenate(parts) for parts in zip(*choices, strict=True))
    bins = reliability(confidence, right)
    return Calibration(
        as_is=_calibration_error(seeds, [1.0] * len(seeds), resampled),
        temperature=temperatures,
        scaled=_calibration_error(seeds, temperatures, resampled),
        reliability=[ReliabilityBin(**one._asdict()) for one in bins],
    )


def _calibration_error(seeds: Sequence[Predicted], temperatures: Sequence[float], resampled: Resampled) -> CalibrationError:
    scaled = list(zip(seeds, temperatures, strict=True))
    metrics = [calibration_metrics(own.log_p_UK, own.label_U, temperature) for own, temperature in scaled]
    weights_RU = resampled.draws_RU / resampled.draws_RU.shape[1]

    def ci95(per_item: Callable[[Values, NDArray[np.int64]], Values]) -> Interval:
        sampled = [weights_RU @ per_item(softmax(own.log_p_UK / by, axis=1), own.label_U) for own, by in scaled]
        return defined_interval(np.einsum("RS,SR->R", resampled.seeds_RS, sampled))

    means = {name: float(np.mean([own[name] for own in metrics])) for name in metrics[0]}
    return CalibrationError(
        nll=_finite(means["nll"]),
        nll_ci95=ci95(log_losses),
        brier=means["brier"],
        brier_ci95=ci95(squared_errors),
        ece=means["ece"],
        rms_ce=means["rms_ce"],
    )


def defined_interval(samples: Samples) -> Interval:
    """As `interval`, of the samples that are numbers; None where more than half are none."""
    low, high = interval(np.where(np.isfinite(samples), samples, np.nan))
    return _finite(low), _finite(high)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
