"""Evidential deep learning over tokens or classes, with soft labels and the auxiliary loss (Eq. 3-5, App. B)."""

from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from raw2s.losses import edl_terms, evidence_of, kl_annealing_at, linear_edl_loss, mix_with_own_prediction
from raw2s.methods.cross_entropy import AuxiliarySection, gamma
from raw2s.methods.loss import Coefficients, Loss, Outcome, TokenTargets
from raw2s.section import Rate


class EvidentialSection(AuxiliarySection):
    name: str = "edl"
    evidence: Literal["exp", "softplus", "relu"] = "exp"
    """Evidence of the logits; alpha = evidence + 1."""
    form: Literal["expected", "soft"] = "expected"
    """The paper's Eq. 4, or the soft target put straight into the Dirichlet, as the authors' code does for tokens."""
    kl_weight: Rate = 1e-5
    """lambda_EDL, the weight of the regulariser (App. B)."""
    kl_clamp: Annotated[float, Field(gt=0)] | None = None
    """Largest size of the regulariser of one token, before its weight."""
    kl_anneal_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the run over which the regulariser's weight rises from 0."""
    logit_clamp: Annotated[float, Field(gt=0)] | None = None
    """Logits are clamped to +- this before exp."""


def _coefficients(section: EvidentialSection, step: int, total_steps: int) -> Coefficients:
    kl_weight = section.kl_weight * kl_annealing_at(step, total_steps, section.kl_anneal_fraction)
    return {**gamma(section, step, total_steps), "kl_weight": kl_weight}


def _over_tokens(
    head: nn.Module, hidden_NH: torch.Tensor, targets: TokenTargets, section: EvidentialSection, at: Coefficients
) -> Outcome:
    found = head(
        linear_edl_loss,
        hidden_NH,
        targets.token_N,
        targets.token_prob,
        row_weight_N=targets.row_weight_N,
        gamma=at["gamma"],
        kl_weight=at["kl_weight"],
        evidence=section.evidence,
        form=section.form,
        logit_clamp=section.logit_clamp,
        kl_clamp=section.kl_clamp,
        half_precision_weight_grad=section.half_precision_weight_grad,
    )
    logged = {"nll": (targets.row_weight_N * found.nll_N).sum()}
    if found.kl_N is not None:
        logged["kl"] = (targets.row_weight_N * found.kl_N).sum()
    return found.loss, logged


def _over_classes(logits_PK: torch.Tensor, target_PK: torch.Tensor, section: EvidentialSection, at: Coefficients) -> Outcome:
    mixed_PK = mix_with_own_prediction(target_PK, logits_PK, at["gamma"])  # Eq. 5 is Eq. 4 on the mixed target
    nll_P, kl_P = edl_terms(
        logits_PK,
        mixed_PK,
        evidence=section.evidence,
        form=section.form,
        logit_clamp=section.logit_clamp,
        kl_clamp=section.kl_clamp,
    )
    nll, kl = nll_P.sum(), kl_P.sum()
    if at["kl_weight"] == 0:
        return nll, {"nll": nll.detach()}
    return nll + at["kl_weight"] * kl, {"nll": nll.detach(), "kl": kl.detach()}


EVIDENTIAL = Loss(
    section=EvidentialSection,
    title=lambda section: "EDL",
    card=lambda section: f"evidential deep learning, evidence `{section.evidence}`, form `{section.form}`",
    coefficients=_coefficients,
    linear=lambda section: section.form == "expected",
    over_tokens=_over_tokens,
    over_classes=_over_classes,
    evidence=lambda section: partial(evidence_of, evidence=section.evidence, logit_clamp=section.logit_clamp),
)
