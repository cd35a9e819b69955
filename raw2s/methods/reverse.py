"""Reverse cross entropy and reverse KL: the student follows the labels where it is sure (Yao et al. 2025, arXiv 2502.11107).

With the student's p and the label y, reverse CE is -Σ_k p_k log y_k and reverse KL is Σ_k p_k log(p_k / y_k): zero-forcing, where
the forward losses make the student cover all that a weak teacher holds possible. The label is a constant.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from raw2s.losses import linear_loss, mix_with_own_prediction
from raw2s.losses.conventions import at_least_float32
from raw2s.methods.cross_entropy import AuxiliarySection, gamma
from raw2s.methods.loss import Coefficients, Loss, Outcome, TokenTargets


class ReverseSection(AuxiliarySection):
    floor: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    """Least probability of a label: log 0, of a hard label's other entries, is infinite."""


def reverse_cross_entropy(logits: Tensor, target: Tensor, *, floor: float) -> Tensor:
    """-Σ_k p_k log max(y_k, floor) in nats: logits and target (..., K) -> (...)."""
    return -(logits.softmax(-1) * target.clamp(min=floor).log()).sum(-1)


def reverse_kl(logits: Tensor, target: Tensor, *, floor: float) -> Tensor:
    """Σ_k p_k (log p_k - log max(y_k, floor)) in nats: logits and target (..., K) -> (...)."""
    log_p = logits.log_softmax(-1)
    return (log_p.exp() * (log_p - target.clamp(min=floor).log())).sum(-1)


def _reverse(formula: Callable[..., Tensor], title: str, card: str, about: str) -> Loss:
    def over_tokens(
        head: nn.Module, hidden_NH: Tensor, targets: TokenTargets, section: ReverseSection, at: Coefficients
    ) -> Outcome:
        function = partial(linear_loss, partial(formula, floor=section.floor))
        weighted = {"row_weight_N": targets.row_weight_N, "gamma": at["gamma"]}
        return head(function, hidden_NH, targets.token_N, targets.token_prob, **weighted).loss, {}

    def over_classes(logits_PK: Tensor, target_PK: Tensor, section: ReverseSection, at: Coefficients) -> Outcome:
        mixed_PK = mix_with_own_prediction(target_PK, logits_PK, at["gamma"])
        return formula(at_least_float32(logits_PK), mixed_PK, floor=section.floor).sum(), {}

    return Loss(
        section=ReverseSection,
        title=lambda section: title,
        card=lambda section: card,
        coefficients=gamma,
        linear=lambda section: False,
        over_tokens=over_tokens,
        over_classes=over_classes,
        about=f"{about} (Yao et al. 2025).",
    )


REVERSE_CE = _reverse(
    reverse_cross_entropy,
    "reverse CE",
    "reverse cross entropy",
    "Reverse cross entropy: the student follows the labels where it is sure",
)
REVERSE_KL = _reverse(
    reverse_kl,
    "reverse KL",
    "reverse KL divergence",
    "Reverse KL divergence: reverse cross entropy less the student's own entropy, so it need not be sure",
)
