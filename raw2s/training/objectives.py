"""What a training step minimises: a micro-batch in, the summed loss and what is logged of it out.

Each objective returns a *sum* over its tokens or rows; the loop divides by the whole step's total. Over a vocabulary they run
through the fused heads of `raw2s.losses`: no (tokens, V) tensor stands for the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from raw2s.decoding import spread_word_scores
from raw2s.decoding.heads import hidden_at, layout_for, output_head
from raw2s.decoding.packing import Layout
from raw2s.losses import (
    FusedHead,
    cdpo_loss,
    cross_entropy,
    edl_terms,
    gamma_at,
    kl_annealing_at,
    linear_cross_entropy,
    linear_edl_loss,
    linear_log_probs,
    mix_with_own_prediction,
)
from raw2s.training.batching import Batch
from raw2s.training.job import LossSettings

FIRST_CHOICE_SLACK = 1e-5
"""A token as likely as the likeliest, up to rounding, is the model's first choice."""

Outcome = tuple[torch.Tensor, dict[str, torch.Tensor]]
"""The summed loss, and what is logged beside it, summed too."""
Objective = Callable[[nn.Module, torch.Tensor, Batch], Outcome]
"""(output head, hidden states at the predicting positions, batch) -> outcome."""


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


class PackedModel(nn.Module):
    """A model whose forward gives an objective of a batch: its head is run at the batch's N predicting positions and no others.

    One forward of one module, so that DeepSpeed's ZeRO-3 hooks gather every partitioned weight, the head's too.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        head = output_head(model)
        self.head: nn.Module = head if hasattr(model, "score") else FusedHead(head)
        self.hidden_size: int = model.config.get_text_config().hidden_size

    @property
    def layout(self) -> Layout:
        """How its batches are packed, in training or in evaluation as it is now."""
        return layout_for(self.model)

    def forward(self, batch: Batch, objective: Objective) -> Outcome:
        return objective(self.head, hidden_at(self.model, batch.rows, batch.predictor_N), batch)


def token_loss(head: nn.Module, hidden_NH: torch.Tensor, batch: Batch, settings: LossSettings, at: Coefficients) -> Outcome:
    """Eq. 2, 4 and 5 over target tokens, each weighted with its teachers' weights; `head` is a `FusedHead`.

    Teachers who gave the same sequence share one row of the batch: the soft label is linear in P(s_i), and so is the loss
    in the soft label (`raw2s.losses.mix_targets`), so their mean P(s_i) gives what the sum over them would.
    """
    weight_N = batch.weight_IN.sum(dim=0)
    token_prob = None if batch.word_logprob_IW is None else partial(_teacher_probability, batch=batch, bridge=settings.bridge)
    common: dict[str, Any] = {"row_weight_N": weight_N, "gamma": at.gamma}
    if not settings.edl:
        return head(linear_cross_entropy, hidden_NH, batch.token_N, token_prob, **common).loss, {}
    found = head(
        linear_edl_loss, hidden_NH, batch.token_N, token_prob, **common,
        kl_weight=at.kl, evidence=settings.evidence, form=settings.form,
        logit_clamp=settings.logit_clamp, kl_clamp=settings.kl_clamp,
    )  # fmt: skip
    logged = {"nll": (weight_N * found.nll_N).sum()}
    if found.kl_N is not None:
        logged["kl"] = (weight_N * found.kl_N).sum()
    return found.loss, logged


def class_loss(head: nn.Module, hidden_PH: torch.Tensor, batch: Batch, settings: LossSettings, at: Coefficients) -> Outcome:
    """Eq. 2, 4 and 5 over classes; the teachers' probabilities come already mixed with their weights."""
    logits_PK = head(hidden_PH)
    target_PK = mix_with_own_prediction(batch.probabilities_PK, logits_PK, at.gamma)  # Eq. 5 is Eq. 4 on the mixed target
    if not settings.edl:
        return cross_entropy(logits_PK, target_PK, reduction="sum"), {}
    nll_P, kl_P = edl_terms(
        logits_PK, target_PK, evidence=settings.evidence, form=settings.form,
        logit_clamp=settings.logit_clamp, kl_clamp=settings.kl_clamp,
    )  # fmt: skip
    nll, kl = nll_P.sum(), kl_P.sum()
    if at.kl == 0:
        return nll, {"nll": nll.detach()}
    return nll + at.kl * kl, {"nll": nll.detach(), "kl": kl.detach()}


def preference_loss(head: nn.Module, hidden_NH: torch.Tensor, batch: Batch, settings: LossSettings, at: Coefficients) -> Outcome:
    """cDPO, Eq. 9 and 12, over pairs; sequences alternate chosen, rejected.

    `reference_kl` is the mean over both of log P_ref - log P: the reference wrote them, so it estimates KL(ref || policy).
    """
    policy_P2 = _pair_logprobs(head, hidden_NH, batch)
    (chosen_P, rejected_P), (ref_chosen_P, ref_rejected_P) = policy_P2.unbind(1), batch.reference_P2.unbind(1)
    loss = cdpo_loss(
        chosen_P, rejected_P, ref_chosen_P, ref_rejected_P,
        beta=settings.beta, label_smoothing=settings.label_smoothing, reduction="sum",
    )  # fmt: skip
    margin_P = settings.beta * ((chosen_P - ref_chosen_P) - (rejected_P - ref_rejected_P)).detach()
    away = (batch.reference_P2 - policy_P2.detach()).mean(dim=1).sum()
    return loss, {"margin": margin_P.sum(), "accuracy": (margin_P > 0).sum(), "reference_kl": away}


def pair_references(head: nn.Module, hidden_NH: torch.Tensor, batch: Batch) -> Outcome:
    """No loss: log P of the chosen and of the rejected text of every pair, (P, 2), under the model before it is trained."""
    return hidden_NH.new_zeros(()), {"reference_P2": _pair_logprobs(head, hidden_NH, batch)}


def _pair_logprobs(head: nn.Module, hidden_NH: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Summed log P of every pair's texts, end included: (P, 2), fp32 at least."""
    logprob_N, _ = head(linear_log_probs, hidden_NH, batch.token_N)
    pairs = len(batch.reference_P2)
    return logprob_N.new_zeros(2 * pairs).index_add(0, batch.sequence_N, logprob_N).view(pairs, 2)


def token_accuracy(head: nn.Module, hidden_NH: torch.Tensor, batch: Batch) -> Outcome:
    """Summed cross entropy of the target tokens, and how many are the model's first choice (`correct`)."""
    logprob_N, max_prob_N = head(linear_log_probs, hidden_NH, batch.token_N)
    return -logprob_N.sum(), {"correct": (logprob_N >= max_prob_N.log() - FIRST_CHOICE_SLACK).sum()}


def class_accuracy(head: nn.Module, hidden_PH: torch.Tensor, batch: Batch) -> Outcome:
    """Summed cross entropy against the rows' likeliest class, and how many rows get it (`correct`)."""
    logits_PK = head(hidden_PH).float()
    class_P = batch.probabilities_PK.argmax(dim=-1)
    return F.cross_entropy(logits_PK, class_P, reduction="sum"), {"correct": (logits_PK.argmax(dim=-1) == class_P).sum()}


def _teacher_probability(max_prob_N: torch.Tensor, batch: Batch, bridge: Literal["log", "eq8", "equal"]) -> torch.Tensor:
    """P(s_i), Eq. 7-8, of every target token: the weighted mean over the teachers who gave its sequence."""
    assert batch.word_logprob_IW is not None
    teachers = len(batch.weight_IN)
    logprob_IN = spread_word_scores(
        batch.word_logprob_IW, batch.word_N.expand(teachers, -1), max_prob_N.expand(teachers, -1), bridge=bridge
    )
    return (batch.weight_IN * logprob_IN.exp()).sum(dim=0) / batch.weight_IN.sum(dim=0)
