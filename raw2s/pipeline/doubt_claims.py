"""What a student's doubt is worth against the plain answers: its largest probability, and a temperature fitted on devel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raw2s.evaluation.intervals import Samples
from raw2s.pipeline.claims import judge
from raw2s.pipeline.contrasts import Contrast
from raw2s.results import Claim

PLAIN = "probability"
AS_IS, SCALED = "as it is", "after a temperature"
Figure = tuple[float, Samples]
"""The mean over the seeds, and the same of the resampled test sets and seeds."""


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """A student's doubt and calibration."""

    fields: Mapping[str, Any]
    """Of its record in results.json."""
    evidential: bool
    """Whether it says a Dirichlet."""
    auroc: Mapping[str, Figure]
    """Of error, by measure."""
    nll: Mapping[str, Figure]
    """`AS_IS`, and of classes `SCALED`."""


def doubt_claims(students: Sequence[tuple[str, Weighed]]) -> list[Claim]:
    """Corrected together, of students by their label: whether a measure finds errors better than the probability of the answer does,
    and whether an evidential student's probabilities are better than those of cross entropy after a temperature.

    An effect above 0 is for the measure, or for the evidential student: AUROC, or NLL in nats that it has less.
    """
    asked: list[tuple[str, Figure, Figure]] = []
    for label, own in students:
        others = [measure for measure in own.auroc if measure != PLAIN]
        for measure in others if PLAIN in own.auroc else []:
            better = f"{measure.replace('_', ' ')} finds errors better than the answer's probability: {label}"
            asked.append((better, own.auroc[measure], own.auroc[PLAIN]))
    plain = [(label, own) for label, own in students if not own.evidential]
    for label, own in ((label, own) for label, own in students if own.evidential):
        for other, against in plain:
            scaled = SCALED if SCALED in against.nll else AS_IS
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
