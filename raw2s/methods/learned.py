"""Teachers' weights that are learned while the student trains: where they start, and a step on the simplex."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEAST_WEIGHT = 1e-6
"""As in RAVEN's code: a teacher that fell behind can come back."""


@dataclass(frozen=True, kw_only=True)
class LearnedWeights:
    """What the training loop is told of them; lists are in the order of `teachers`."""

    teachers: tuple[str, ...]
    start: tuple[float, ...]
    rate: float
    """Step size, per nat of a teacher's mean loss."""
    agreement_fraction: float
    """Share of the run's steps in which only rows count whose teachers agree, and the weights rest."""

    def resting(self, step: int, total_steps: int) -> bool:
        """Whether step (from 0) is one of the first, in which the teachers must agree."""
        return step < self.agreement_fraction * total_steps


def step_on_simplex(weights: Sequence[float], losses: Sequence[float | None], rate: float) -> list[float]:
    """w_i ∝ w_i exp(-rate · L_i): a step of exponentiated gradient on Σ_i w_i L_i (Kivinen and Warmuth 1997).

    A teacher without a loss (None), which has labeled nothing in this step, counts as the others' mean; weight 0 stays 0.
    """
    known = [(weight, loss) for weight, loss in zip(weights, losses, strict=True) if loss is not None]
    if not known:
        return list(weights)
    mean = sum(weight * loss for weight, loss in known) / sum(weight for weight, _ in known)
    gaps = [0.0 if loss is None else loss - mean for loss in losses]
    least = min(gaps)  # taken out, so that no factor overflows
    moved = [weight * math.exp(-rate * (gap - least)) for weight, gap in zip(weights, gaps, strict=True)]
    kept = [max(LEAST_WEIGHT, now / sum(moved)) if weight else 0.0 for weight, now in zip(weights, moved, strict=True)]
    return [weight / sum(kept) for weight in kept]
