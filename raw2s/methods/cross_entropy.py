"""Cross entropy with soft labels and the auxiliary confidence loss (Eq. 1, 2; sections 3.1, 4.2)."""

from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from raw2s.decoding.bridge import Bridge, Words
from raw2s.losses import cross_entropy, gamma_at, linear_cross_entropy, linear_loss, mix_with_own_prediction
from raw2s.methods.loss import Coefficients, Loss, LossSection, Outcome, TokenTargets
from raw2s.section import Fraction

AUTHORS_WARMUP = 0.25
"""Share of the run after which gamma jumps in the authors' code."""


class AuxiliarySection(LossSection):
    """What all losses share that mix the student's own prediction into the target (Eq. 1, 5)."""

    bridge: Bridge = "log"
    """Text: how a word's probability is shared among the student's pieces (Eq. 7, 8)."""
    words: Words = "runs"
    """Text: whose probability that is, a run of letters or of punctuation, or all that stands between spaces, as in the paper."""
    gamma_max: Fraction = 0.0
    """Largest weight of the auxiliary confidence loss (Eq. 1, 5); 0 turns it off."""
    gamma_schedule: Literal["linear", "authors"] = "linear"
    """How gamma grows; `authors` reproduces the jump of their code."""
    gamma_warmup_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the run over which gamma rises to gamma_max; with `authors`, after which it jumps there (by default their 0.25)."""
    half_precision_weight_grad: bool = False
    """In half precision on CUDA: sum the output embedding's gradient in that precision; less memory, more rounding."""

    @model_validator(mode="before")
    @classmethod
    def _jumps_where_theirs_does(cls, tree: Any) -> Any:
        if isinstance(tree, dict) and tree.get("gamma_schedule") == "authors":
            return {"gamma_warmup_fraction": AUTHORS_WARMUP, **tree}
        return tree

    @model_validator(mode="after")
    def _jumps_at_all(self) -> "AuxiliarySection":
        if self.gamma_schedule == "authors" and self.gamma_warmup_fraction == 1:
            raise ValueError(
                "gamma_schedule: authors jumps to gamma_max after gamma_warmup_fraction of the run, which is all of it; lower that, "
                "or set gamma_schedule: linear, which is the same then"
            )
        return self


class CrossEntropySection(AuxiliarySection):
    name: str = "ce"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """epsilon: the target is (1 - epsilon) of itself and epsilon of all K classes, or pieces, alike; 0 turns it off."""


def gamma(section: AuxiliarySection, step: int, total_steps: int) -> Coefficients:
    """γ of Eq. 1 and 5 at a step."""
    warmup, schedule = section.gamma_warmup_fraction, section.gamma_schedule
    return {"gamma": gamma_at(step, total_steps, section.gamma_max, warmup_fraction=warmup, schedule=schedule)}


def _over_tokens(
    head: nn.Module, hidden_NH: torch.Tensor, targets: TokenTargets, section: CrossEntropySection, at: Coefficients
) -> Outcome:
    if section.label_smoothing:  # the closed form of the fused rows has none
        function = partial(linear_loss, partial(cross_entropy, label_smoothing=section.label_smoothing, reduction="none"))
        weighted = {"row_weight_N": targets.row_weight_N, "gamma": at["gamma"]}
        return head(function, hidden_NH, targets.token_N, targets.token_prob, **weighted).loss, {}
    found = head(
        linear_cross_entropy,
        hidden_NH,
        targets.token_N,
        targets.token_prob,
        row_weight_N=targets.row_weight_N,
        gamma=at["gamma"],
        half_precision_weight_grad=section.half_precision_weight_grad,
    )
    return found.loss, {}


def _over_classes(logits_PK: torch.Tensor, target_PK: torch.Tensor, section: CrossEntropySection, at: Coefficients) -> Outcome:
    mixed_PK = mix_with_own_prediction(target_PK, logits_PK, at["gamma"])
    return cross_entropy(logits_PK, mixed_PK, label_smoothing=section.label_smoothing, reduction="sum"), {}


def _true(section: Any) -> bool:
    return True


def _smoothing(section: CrossEntropySection) -> str:
    return f", label smoothing {section.label_smoothing:g}" if section.label_smoothing else ""


CROSS_ENTROPY = Loss(
    section=CrossEntropySection,
    title=lambda section: "CE" + _smoothing(section),
    card=lambda section: "cross entropy" + _smoothing(section),
    coefficients=gamma,
    linear=_true,
    over_tokens=_over_tokens,
    over_classes=_over_classes,
)
