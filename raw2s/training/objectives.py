"""What a training step minimises: a micro-batch in, the summed loss and what is logged of it out.

Each objective returns a *sum* over its tokens or rows; the loop divides by the whole step's total.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from raw2s.decoding import spread_word_scores
from raw2s.decoding.heads import logits_at
from raw2s.losses import (
    cdpo_loss,
    cross_entropy,
    edl_loss,
    edl_terms,
    gamma_at,
    kl_annealing_at,
    mix_with_own_prediction,
    soft_label,
    soft_label_cross_entropy,
)
from raw2s.training.batching import Batch
from raw2s.training.job import LossSettings


@dataclass(frozen=True)
class Coefficients:
    """gamma (Eq. 1, 5) and lambda (App. B) at one step."""

    gamma: float
    kl: float

    @classmethod
    def at(cls, step: int, total_steps: int, settings: LossSettings) -> "Coefficients":
        return cls(
            gamma_at(
                step, total_steps, settings.gamma_max,
                warmup_fraction=settings.gamma_warmup_fraction, schedule=settings.gamma_schedule,
            ),
            settings.kl_weight * kl_annealing_at(step, total_steps, settings.kl_anneal_fraction) if settings.edl else 0.0,
        )  # fmt: skip


class TargetLogits(nn.Module):
    """A model whose forward gives the logits that a batch's loss needs and no others: (N, V), or (P, K) for classes.

    One forward of one module, so that DeepSpeed's ZeRO-3 hooks gather every partitioned weight, the head's too.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.hidden_size: int = model.config.get_text_config().hidden_size

    def forward(self, batch: Batch) -> torch.Tensor:
        return logits_at(self.model, batch.rows, batch.predictor_N)


def token_loss(
    logits_NV: torch.Tensor, batch: Batch, settings: LossSettings, at: Coefficients
) -> tuple[torch.Tensor, dict[str, float]]:
    """Eq. 2, 4 and 5 over target tokens, each weighted with its teachers' weights.

    Teachers who gave the same sequence share one row of the batch: the soft label is linear in P(s_i), and so is the loss
    in the soft label (`raw2s.losses.mix_targets`), so their mean P(s_i) gives what the sum over them would.
    """
    weight_N = batch.weight_IN.sum(dim=0)
    prob_N = None if batch.word_logprob_IW is None else _teacher_probability(logits_NV, batch, settings.bridge)
    if settings.edl:
        vocabulary = logits_NV.shape[-1]
        target_NV = (
            F.one_hot(batch.token_N, vocabulary).to(logits_NV.dtype)
            if prob_N is None
            else soft_label(logits_NV.detach(), batch.token_N, prob_N)
        )
        loss_N, logged = _edl(logits_NV, target_NV, settings, at, weight_N)
    else:
        own_N = cross_entropy(logits_NV, logits_NV.argmax(dim=-1), reduction="none") if at.gamma else 0.0
        loss_N = (
            cross_entropy(logits_NV, batch.token_N, reduction="none")
            if prob_N is None
            else soft_label_cross_entropy(logits_NV, batch.token_N, prob_N, reduction="none")
        )
        loss_N, logged = (1 - at.gamma) * loss_N + at.gamma * own_N, {}
    return (weight_N * loss_N).sum(), logged


def class_loss(
    logits_PK: torch.Tensor, batch: Batch, settings: LossSettings, at: Coefficients
) -> tuple[torch.Tensor, dict[str, float]]:
    """Eq. 2, 4 and 5 over classes; the teachers' probabilities come already mixed with their weights."""
    if settings.edl:
        loss_P, logged = _edl(
            logits_PK, batch.probabilities_PK, settings, at, torch.ones(len(logits_PK), device=logits_PK.device)
        )
        return loss_P.sum(), logged
    target_PK = mix_with_own_prediction(batch.probabilities_PK, logits_PK, at.gamma)
    return cross_entropy(logits_PK, target_PK, reduction="sum"), {}


def preference_loss(
    logits_NV: torch.Tensor, batch: Batch, settings: LossSettings, at: Coefficients
) -> tuple[torch.Tensor, dict[str, float]]:
    """cDPO, Eq. 9 and 12, over pairs; sequences alternate chosen, rejected."""
    logprob_N = -cross_entropy(logits_NV, batch.token_N, reduction="none")
    pairs = len(batch.reference_P2)
    policy_P2 = logprob_N.new_zeros(2 * pairs).index_add(0, batch.sequence_N, logprob_N).view(pairs, 2)
    (chosen_P, rejected_P), (ref_chosen_P, ref_rejected_P) = policy_P2.unbind(1), batch.reference_P2.unbind(1)
    loss = cdpo_loss(
        chosen_P, rejected_P, ref_chosen_P, ref_rejected_P,
        beta=settings.beta, label_smoothing=settings.label_smoothing, reduction="sum",
    )  # fmt: skip
    margin_P = settings.beta * ((chosen_P - ref_chosen_P) - (rejected_P - ref_rejected_P)).detach()
    return loss, {"margin": margin_P.sum().item(), "accuracy": (margin_P > 0).float().sum().item()}


def _teacher_probability(logits_NV: torch.Tensor, batch: Batch, bridge: Literal["log", "eq8", "equal"]) -> torch.Tensor:
    """P(s_i), Eq. 7-8, of every target token: the weighted mean over the teachers who gave its sequence."""
    assert batch.word_logprob_IW is not None
    confidence_N = logits_NV.detach().float().softmax(dim=-1).amax(dim=-1)
    teachers = len(batch.weight_IN)
    logprob_IN = spread_word_scores(
        batch.word_logprob_IW, batch.word_N.expand(teachers, -1), confidence_N.expand(teachers, -1), bridge=bridge
    )
    return (batch.weight_IN * logprob_IN.exp()).sum(dim=0) / batch.weight_IN.sum(dim=0)


def _edl(
    logits: torch.Tensor, target: torch.Tensor, settings: LossSettings, at: Coefficients, row_weight: torch.Tensor
) -> tuple[torch.Tensor, dict[str, float]]:
    """Eq. 5 is Eq. 4 on the target mixed with the student's own arg-max."""
    target = mix_with_own_prediction(target, logits, at.gamma)
    options: dict[str, Any] = {
        "evidence": settings.evidence,
        "form": settings.form,
        "logit_clamp": settings.logit_clamp,
        "kl_clamp": settings.kl_clamp,
    }
    if at.kl == 0:
        nll = edl_loss(logits, target, kl_weight=0.0, reduction="none", **options)
        return nll, {"nll": (row_weight * nll).sum().item()}
    nll, kl = edl_terms(logits, target, **options)
    return nll + at.kl * kl, {"nll": (row_weight * nll).sum().item(), "kl": (row_weight * kl).sum().item()}
