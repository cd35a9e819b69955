"""What the paper claims against what a run measured: every contrast with its interval and p-value, corrected together."""

from collections.abc import Sequence

import numpy as np

from raw2s.evaluation.comparing import holm, p_of_difference
from raw2s.evaluation.intervals import Samples, interval
from raw2s.pipeline.contrasts import Contrast
from raw2s.report.outcome import REAL
from raw2s.results import Claim, Verdict


def judge(contrasts: Sequence[Contrast], scores: Sequence[float], samples: Sequence[Samples]) -> list[Claim]:
    """`scores` and `samples` are the systems' that the contrasts weigh; `samples` on the same resampled test sets and seeds."""
    effects = [float(contrast.weights @ scores) for contrast in contrasts]
    sampled = [contrast.weights @ np.asarray(samples) for contrast in contrasts]
    p_values = [p_of_difference(own) for own in sampled]
    return [
        Claim(
            statement=contrast.statement,
            paper=contrast.paper,
            effect=effect,
            ci95=interval(own),
            p=p,
            p_holm=p_holm,
            verdict=_verdict(contrast.paper, effect, p_holm),
        )
        for contrast, effect, own, p, p_holm in zip(contrasts, effects, sampled, p_values, holm(p_values), strict=True)
    ]


def _verdict(paper: float | None, effect: float, p_holm: float) -> Verdict:
    if p_holm >= REAL:
        return "cannot be told"
    return "as the paper" if (effect > 0) == (paper is None or paper > 0) else "the reverse"
