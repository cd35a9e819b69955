"""The teachers' spread as the target: a Dirichlet with the mean and the spread of their class probabilities. Classes only.

Several teachers' distributions are a sample of distributions, and a Dirichlet is fitted to it by the method of moments, as Franzen and
Pourkamali-Anaraki (2026, arXiv 2604.06032) do with an ensemble's when it predicts; here it is what the student learns. With weights
w_i and the mean m = Σ w_i p_i, the spread v = Σ_i w_i |p_i - m|² / (1 - Σ w_i²) is (1 - |m|²) / (1 + α_0) for Dir(α_0 m), whence α_0.
The student says Dir(exp z), whose mean is softmax(z), and the loss is KL(Dir(α_0 m) ‖ Dir(exp z)), as that of ensemble distribution
distillation (Malinin et al., 2020) with the target fitted first. Where the teachers agree α_0 is `max_strength`, and such items
weigh most.
"""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from raw2s.labels.rows import TrainingRow
from raw2s.labels.targets import Labeled, class_rows
from raw2s.methods.method import Method, MethodSection, with_loss_weights


class MomentsSection(MethodSection):
    min_strength: Annotated[float, Field(gt=0)] = 1.0
    """Least sum of the target's counts: teachers who contradict each other leave a mean that is worth that many observations."""
    max_strength: Annotated[float, Field(gt=0)] = 100.0
    """Largest such sum, also where only one teacher has a label: of N teachers who happen to agree it would be infinite."""


def strength_of(probabilities_IK: Tensor, weight_I: Tensor) -> float:
    """α_0 of the Dirichlet with the weighted mean and spread of I distributions over K classes; inf without a spread, or for one.

    0 where they lie as far apart as corners do. `weight_I` sums to 1.
    """
    mean_K = weight_I @ probabilities_IK
    spread = (weight_I * ((probabilities_IK - mean_K) ** 2).sum(-1)).sum() / (1 - (weight_I**2).sum())
    return max(0.0, float((1 - (mean_K**2).sum()) / spread - 1)) if spread > 0 else torch.inf


def _rows(labeled: Labeled, section: MomentsSection) -> list[TrainingRow]:
    rows = class_rows(labeled, confidence=section.confidence, per_teacher=True)
    for row in rows:
        strength = _strength(row.pop("by_teacher"), labeled.weights)
        row["strength"] = min(max(strength, section.min_strength), section.max_strength)
    return rows


def _strength(by_teacher: Sequence[Sequence[float] | None], weights: Sequence[float]) -> float:
    own = [(p, weight) for p, weight in zip(by_teacher, weights, strict=True) if p is not None]
    if len(own) == 1:
        return torch.inf
    probabilities, present = zip(*own, strict=True)
    weight_I = torch.tensor(present, dtype=torch.float64)
    return strength_of(torch.tensor(probabilities, dtype=torch.float64), weight_I / weight_I.sum())


MOMENTS = Method(
    section=MomentsSection,
    title=lambda section: "Dirichlet of the teachers' moments",
    label=lambda section: "moments",
    loss="dirichlet",
    weights=with_loss_weights,
    from_text=None,
    from_classes=_rows,
)
