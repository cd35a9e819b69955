"""The student says a Dirichlet and is held to another one: the loss of method `moments`."""

import torch
from torch import Tensor

from raw2s.losses.conventions import at_least_float32
from raw2s.methods.loss import Coefficients, Loss, LossSection, Outcome, no_schedule

LEAST_COUNT = 0.01
"""Of a class that no teacher holds possible: at 0 the divergence is infinite, and its gradient grows like one over the count."""


class DirichletSection(LossSection):
    name: str = "dirichlet"


def dirichlet_divergence(logits: Tensor, alpha: Tensor) -> Tensor:
    """KL(Dir(alpha) ‖ Dir(exp logits)) in nats: (..., K) twice -> (...), fp64; alpha is above 0."""
    a, b = alpha.double(), logits.double().exp()
    expected_log = torch.digamma(a) - torch.digamma(a.sum(-1, keepdim=True))
    own, other = (torch.lgamma(x.sum(-1)) - torch.lgamma(x).sum(-1) for x in (a, b))
    return own - other + ((a - b) * expected_log).sum(-1)


def evidence_of_counts(logits: Tensor) -> Tensor:
    """e of the counts exp z = 1 + e, above -1: (..., K), fp32 at least."""
    return at_least_float32(logits).expm1()


def _over_classes(logits_PK: Tensor, target_PK: Tensor, section: DirichletSection, at: Coefficients) -> Outcome:
    return dirichlet_divergence(logits_PK, target_PK.clamp(min=LEAST_COUNT)).sum(), {"strength": target_PK.sum()}


DIRICHLET = Loss(
    section=DirichletSection,
    title=lambda section: "Dirichlet KL",
    card=lambda section: "KL divergence from a Dirichlet",
    coefficients=no_schedule,
    linear=lambda section: False,
    over_tokens=None,
    over_classes=_over_classes,
    evidence=lambda section: evidence_of_counts,
)
