"""What a student's doubt is worth against the plain answers: its largest probability, and a temperature fitted on devel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raw2s.evaluation.intervals import Samples
from raw2s.pipeline.claims import judge
from raw2s.pipeline.contrasts import Contrast
from raw2s.pipeline.doubt_figures import BEYOND, SCALED, Figure
from raw2s.results import Claim

PLAIN = "probability"


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """A student's doubt and calibration."""

    fields: Mapping[str, Any]
    """Of its record in results.json."""
    evidential: bool
    """Whether it says a Dirichlet."""
    auroc: Mapping[str, Figure]
    """Of error, by measure."""
    gain: Mapping[str, Figure]
    """Of the score where the most doubtful fifth is left out, by measure."""
    nll: Mapping[str, Figure]
    """Of classes `AS_IS` and `SCALED`, of texts `BEYOND`."""


def doubt_claims(students: Sequence[tuple[str, Weighed]]) -> list[Claim]:
    """Corrected together, of students by their label: whether a measure finds errors better than the probability of the answer does,
    whether abstaining by it raises the score more, and whether an evidential student's probabilities are better than those of cross
    entropy after a temperature.

    An effect above 0 is for the measure, or for the evidential student: AUROC, score, or NLL in nats that it has less.
    """
    asked: list[tuple[str, Figure, Figure]] = []
    for label, own in students:
        for does, by_measure in (("finds errors better", own.auroc), ("is better to abstain by", own.gain)):
            for measure in by_measure if PLAIN in by_measure else []:
                if measure != PLAIN:
                    better = f"{measure.replace('_', ' ')} {does} than the answer's probability: {label}"
                    asked.append((better, by_measure[measure], by_measure[PLAIN]))
    plain = [(label, own) for label, own in students if not own.evidential]
    for label, own in ((label, own) for label, own in students if own.evidential):
        for other, against in plain:
            scaled = SCALED if SCALED in against.nll else BEYOND
            for state in own.nll:
                better = f"less NLL: {label}, {state}, than {other}, {scaled}"
                asked.append((better, _less(own.nll[state]), _less(against.nll[scaled])))
    figures = [figure for _, one, other in asked for figure in (one, other)]
    contrasts = [
        Contrast(statement=statement[0].upper() + statement[1:], weights=_difference(place, len(figures)), paper=None)
        for place, (statement, _, _) in enumerate(asked)
    ]
    return judge(contrasts, [value for value, _ in figures], [samples for _, samples in figures])


def _less(figure: Figure) -> Figure:
    return -figure[0], -figure[1]


def _difference(place: int, figures: int) -> Samples:
    weights = np.zeros(figures)
    weights[2 * place : 2 * place + 2] = 1, -1
    return weights
