"""From logits and measures of doubt to the records of results.json: of every student, and of an entry's students as an ensemble."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr, logsumexp, softmax

from raw2s.doubt_results import Calibration, CalibrationError, Doubt, ReliabilityBin
from raw2s.evaluation.calibration import (
    first_choices,
    fit_temperature,
    gap_in_bins,
    log_losses,
    reliability,
    rms_calibration_error,
    squared_errors,
)
from raw2s.evaluation.intervals import Samples, defined, defined_interval, over_seeds
from raw2s.evaluation.metrics import Counts
from raw2s.evaluation.selective import Selected, risk_coverage, selected
from raw2s.losses import EvidenceOf, doubts, log_prediction, mixture_doubts

Values = NDArray[np.float64]

COVERAGES = np.arange(1, 21) / 20
"""Of the risk-coverage curve."""
LEAST_CHANCE = 1e-12
"""Of an answer that a text's tokens rule out or make certain: -log of it is what such a student loses, not infinity."""
AS_IS, SCALED, BEYOND = "as it is", "after a temperature", "beyond its error rate's entropy"
"""What NLL is of. Texts' is of "my answer is right", of which a student that is more often wrong has less without knowing more."""
Figure = tuple[float, Samples]
"""The mean over the seeds, and the same of the resampled test sets and seeds."""
NAMES = {"choice": "probability"}
"""What results.json calls a measure, where `raw2s.losses.doubt` has another word."""


@dataclass(frozen=True, kw_only=True)
class Draws:
    """The resampled test sets and seeds of a run, the same for all students."""

    draws_RU: NDArray[np.int64]
    seeds_RS: Samples

    @cached_property
    def weights_RU(self) -> Values:
        """Every example's share of a resampled test set."""
        return self.draws_RU / self.draws_RU.shape[1]


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
    return token_means(tokens) | {"sequence_probability": np.array([np.sum(own) for own in tokens["choice"]])}


def token_means(tokens: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, Values]:
    """Every measure's mean over the tokens of an answer, as results.json calls it: (U,) each."""
    return {NAMES.get(name, name): np.array([np.mean(own) for own in answers]) for name, answers in tokens.items()}


def disagreement(answers: Sequence[ArrayLike]) -> Values:
    """Share of the pairs of teachers whose answers to an example differ: (U,); `answers` are a list a teacher, two at least."""
    return np.mean([differing(one, [other]) for one, other in combinations(answers, 2)], axis=0)


def differing(answers: ArrayLike, others: Sequence[ArrayLike]) -> Values:
    """Share of the others whose answer to an example is not this one: (U,); `others` are a list each, one at least."""
    return np.mean([np.asarray(answers) != np.asarray(own) for own in others], axis=0)


def ensemble_of(members: Sequence[Predicted]) -> tuple[Predicted, dict[str, Values]]:
    """The mean of the members' probabilities, and its doubt; the mutual information is that between prediction and member."""
    first = members[0]
    log_p_UK, log_p_PK = (
        logsumexp(rows, axis=0) - math.log(len(members))
        for rows in ([m.log_p_UK for m in members], [m.log_p_PK for m in members])
    )
    found = class_doubts(log_p_UK, None)
    _, mutual_information = mixture_doubts(torch.from_numpy(own.log_p_UK) for own in members)
    predicted = Predicted(log_p_UK=log_p_UK, label_U=first.label_U, log_p_PK=log_p_PK, label_P=first.label_P)
    return predicted, found | {"mutual_information": mutual_information.numpy()}


class Measured(NamedTuple):
    record: Doubt
    auroc_R: Samples
    gain_R: Samples


def measured_doubts(seeds: Sequence[Doubtful], score: Any, resampled: Draws) -> list[Measured]:
    """A record a measure, from the student of every seed, with what the intervals of its AUROC and gain are of."""
    return [_measured(measure, seeds, score, resampled) for measure in seeds[0].doubts]


def _measured(measure: str, seeds: Sequence[Doubtful], score: Any, resampled: Draws) -> Measured:
    given = [(own.doubts[measure], own.error_U, own.counts_UC, score) for own in seeds]
    found = Selected(*np.mean([selected(*own) for own in given], axis=0))
    sampled = zip(*(selected(*own, resampled.draws_RU) for own in given), strict=True)
    of_seeds = [over_seeds(resampled.seeds_RS, values) for values in sampled]
    auroc, aurc, at_80, gain_80 = (defined_interval(samples) for samples in of_seeds)
    record = Doubt(
        measure=measure,
        auroc=defined(float(found.auroc_R[0])),
        auroc_ci95=auroc,
        aurc=float(found.aurc_R[0]),
        aurc_ci95=aurc,
        at_80=float(found.at_coverage_R[0]),
        at_80_ci95=at_80,
        gain_80=float(found.gain_R[0]),
        gain_80_ci95=gain_80,
        risk=np.mean([risk_coverage(own.doubts[measure], own.error_U, COVERAGES) for own in seeds], axis=0).tolist(),
    )
    return Measured(record, of_seeds[0], of_seeds[3])


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One seed's probabilities of its U answers, against the truth."""

    loss_U: Values
    square_U: Values
    confidence_U: Values
    right_U: NDArray[np.bool_]


class Calibrated(NamedTuple):
    record: Calibration
    nll: dict[str, Figure]
    """Of classes as their probabilities are and after a temperature, of texts beyond the error rate's entropy."""


def class_calibration(seeds: Sequence[Predicted], resampled: Draws) -> Calibrated:
    """Of the classifiers of all seeds; their temperatures are fitted on the validation examples."""
    temperatures = [fit_temperature(own.log_p_PK, own.label_P) for own in seeds]
    as_is = [_judged(own, 1.0) for own in seeds]
    scaled = [_judged(own, temperature) for own, temperature in zip(seeds, temperatures, strict=True)]
    (error, nll_R), (scaled_error, scaled_nll_R) = (_calibration_error(judged, resampled) for judged in (as_is, scaled))
    record = Calibration(as_is=error, temperature=temperatures, scaled=scaled_error, reliability=_bins(as_is))
    return Calibrated(record, {AS_IS: (_mean_loss(as_is), nll_R), SCALED: (_mean_loss(scaled), scaled_nll_R)})


def text_calibration(seeds: Sequence[Doubtful], resampled: Draws) -> Calibrated:
    """Of whole answers: the probability of its own answer, as a student's confidence that the answer is right."""
    judged = []
    for own in seeds:
        confidence_U = np.clip(np.exp(-own.doubts["sequence_probability"]), LEAST_CHANCE, 1 - LEAST_CHANCE)
        probabilities_U2, right_U = np.stack([1 - confidence_U, confidence_U], axis=1), ~own.error_U
        labels_U = right_U.astype(np.int64)
        loss_U, square_U = log_losses(probabilities_U2, labels_U), squared_errors(probabilities_U2, labels_U)
        judged.append(Judged(loss_U=loss_U, square_U=square_U, confidence_U=confidence_U, right_U=right_U))
    error, nll_R = _calibration_error(judged, resampled)
    chance_R = over_seeds(resampled.seeds_RS, [_entropy(resampled.weights_RU @ own.right_U) for own in judged])
    beyond = _mean_loss(judged) - float(np.mean([_entropy(own.right_U.mean()) for own in judged]))
    record = Calibration(as_is=error, temperature=[], scaled=None, reliability=_bins(judged))
    return Calibrated(record, {BEYOND: (beyond, nll_R - chance_R)})


def _entropy(share: ArrayLike) -> Values:
    """In nats, of yes or no: what the best constant probability loses."""
    return np.asarray(entr(share) + entr(1 - np.asarray(share)))


def _mean_loss(seeds: Sequence[Judged]) -> float:
    return float(np.mean([own.loss_U for own in seeds]))


def _judged(own: Predicted, temperature: float) -> Judged:
    probabilities_UK = softmax(own.log_p_UK / temperature, axis=1)
    confidence_U, right_U = first_choices(probabilities_UK, own.label_U)
    loss_U, square_U = log_losses(probabilities_UK, own.label_U), squared_errors(probabilities_UK, own.label_U)
    return Judged(loss_U=loss_U, square_U=square_U, confidence_U=confidence_U, right_U=right_U)


def _calibration_error(seeds: Sequence[Judged], resampled: Draws) -> tuple[CalibrationError, Samples]:
    """With the NLL that its interval is of."""
    losses, squares = [own.loss_U for own in seeds], [own.square_U for own in seeds]
    nll_R, brier_R = (
        over_seeds(resampled.seeds_RS, [resampled.weights_RU @ own_U for own_U in own]) for own in (losses, squares)
    )
    error = CalibrationError(
        nll=defined(_mean_loss(seeds)),
        nll_ci95=defined_interval(nll_R),
        brier=float(np.mean(squares)),
        brier_ci95=defined_interval(brier_R),
        ece=float(np.mean([gap_in_bins(own.confidence_U, own.right_U) for own in seeds])),
        rms_ce=float(np.mean([rms_calibration_error(own.confidence_U, own.right_U) for own in seeds])),
    )
    return error, nll_R


def _bins(seeds: Sequence[Judged]) -> list[ReliabilityBin]:
    confidence, right = (np.concatenate(parts) for parts in zip(*((s.confidence_U, s.right_U) for s in seeds), strict=True))
    return [ReliabilityBin(**one._asdict()) for one in reliability(confidence, right)]
