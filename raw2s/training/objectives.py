"""What a training step minimizes: a micro-batch in, the summed loss and what is logged of it out.

Each objective returns a *sum* over its tokens or rows; the loop divides by the whole step's total. Over a vocabulary they run
through the fused heads of `raw2s.losses`: no (tokens, V) tensor stands for the batch.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from raw2s.decoding import spread_word_scores
from raw2s.decoding.heads import hidden_at, layout_for, output_head
from raw2s.decoding.packing import Layout
from raw2s.losses import FusedHead, linear_log_probs
from raw2s.methods import LossSection, loss_of
from raw2s.methods.loss import Coefficients, Outcome, OverClasses, OverPairs, OverTokens, PairTargets, TokenTargets
from raw2s.training.batching import Batch
from raw2s.training.job import Job
from raw2s.training.teacher_weights import LOSS, TOTAL

FIRST_CHOICE_SLACK = 1e-5
"""A token as likely as the likeliest, up to rounding, is the model's first choice."""

ALL = slice(None)

Objective = Callable[[nn.Module, torch.Tensor, Batch], Outcome]
"""(output head, hidden states at the predicting positions, batch) -> outcome."""


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


def objective_of(job: Job, step: int, total_steps: int) -> tuple[Objective, Coefficients]:
    """The job's loss at one step as an objective, and what its schedule gives there.

    Raises ValueError for a loss that has no formula for rows of the job's kind.
    """
    loss = loss_of(job.loss)
    at = loss.coefficients(job.loss, step, total_steps)
    token_loss, class_loss = _token_loss, _class_loss
    if job.learned is not None:
        token_loss, class_loss = (
            partial(of, teachers=job.learned.teachers) for of in (_token_loss_by_teacher, _class_loss_by_teacher)
        )
    match job.rows:
        case "targets" if loss.over_tokens is not None:
            return partial(token_loss, formula=loss.over_tokens, section=job.loss, at=at), at
        case "probabilities" if loss.over_classes is not None:
            return partial(class_loss, formula=loss.over_classes, section=job.loss, at=at), at
        case "pair" if loss.over_pairs is not None:
            return partial(_pair_loss, formula=loss.over_pairs, section=job.loss), at
    raise ValueError(f"the loss {job.loss.name} has no formula for {job.rows}; choose another for this task")


def _token_loss(
    head: nn.Module,
    hidden_NH: torch.Tensor,
    batch: Batch,
    *,
    formula: OverTokens,
    section: LossSection,
    at: Coefficients,
    some_N: torch.Tensor | slice = ALL,
) -> Outcome:
    """Eq. 2, 4 and 5 over target tokens, each weighted with its teachers' weights; `head` is a `FusedHead`.

    Teachers who gave the same sequence share one row of the batch: the soft label is linear in P(s_i), and so is the loss
    in the soft label (`raw2s.losses.mix_targets`), so their mean P(s_i) gives what the sum over them would.
    `some_N`: of some tokens only, whole sequences.
    """
    token_prob = None
    if batch.word_logprob_IW is not None:
        token_prob = partial(_teacher_probability, batch=batch, bridge=getattr(section, "bridge", "log"), some_N=some_N)
    row_weight_N = batch.weight_IN.sum(dim=0)[some_N]
    targets = TokenTargets(token_N=batch.token_N[some_N], token_prob=token_prob, row_weight_N=row_weight_N)
    return formula(head, hidden_NH[some_N], targets, section, at)


def _token_loss_by_teacher(
    head: nn.Module, hidden_NH: torch.Tensor, batch: Batch, *, teachers: Sequence[str], **how: Any
) -> Outcome:
    """`_token_loss` of each teacher's tokens in turn, which tells the teachers' losses apart, whatever the formula.

    For every teacher, also one without tokens here: under ZeRO-3 all ranks must run the head equally often.
    """
    assert batch.teacher_N is not None, "rows are weighed before they are batched, which takes each teacher's own"
    loss, logged = hidden_NH.new_zeros(()), dict[str, torch.Tensor]()
    for i, name in enumerate(teachers):
        mine_N = batch.teacher_N == i
        own, figures = _token_loss(head, hidden_NH, batch, some_N=mine_N, **how)
        loss = loss + own
        logged = figures | {key: figures.get(key, 0.0) + value for key, value in logged.items()}
        logged |= {LOSS + name: own.detach(), TOTAL + name: batch.weight_IN[:, mine_N].sum()}
    return loss, logged


def _class_loss(
    head: nn.Module, hidden_PH: torch.Tensor, batch: Batch, *, formula: OverClasses, section: LossSection, at: Coefficients
) -> Outcome:
    """Eq. 2, 4 and 5 over classes; the teachers' probabilities come already mixed with their weights, a Dirichlet's as its counts."""
    target_PK = batch.probabilities_PK if batch.strength_P is None else batch.probabilities_PK * batch.strength_P[:, None]
    return formula(head(hidden_PH), target_PK, section, at)


def _class_loss_by_teacher(
    head: nn.Module,
    hidden_PH: torch.Tensor,
    batch: Batch,
    *,
    teachers: Sequence[str],
    formula: OverClasses,
    section: LossSection,
    at: Coefficients,
) -> Outcome:
    """`_class_loss`, and what each teacher's own probabilities would lose."""
    assert batch.by_teacher_PIK is not None, "rows are weighed before they are batched, which takes each teacher's own"
    logits_PK = head(hidden_PH)
    loss, logged = formula(logits_PK, batch.probabilities_PK, section, at)
    with torch.no_grad():
        for name, target_PK in zip(teachers, batch.by_teacher_PIK.unbind(1), strict=True):
            here_P = target_PK.sum(dim=1) > 0
            own, _ = formula(logits_PK[here_P], target_PK[here_P], section, at)
            logged |= {LOSS + name: own, TOTAL + name: here_P.sum()}
    return loss, logged


def _pair_loss(head: nn.Module, hidden_NH: torch.Tensor, batch: Batch, *, formula: OverPairs, section: LossSection) -> Outcome:
    """Eq. 9 and 12 over pairs; sequences alternate chosen, rejected."""
    policy_P2 = _pair_logprobs(head, hidden_NH, batch)
    targets = PairTargets(policy_P2=policy_P2, reference_P2=batch.reference_P2, teacher_margin_P=batch.margin_P)
    return formula(targets, section)


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
    """Summed cross entropy against the rows' likeliest class, how many rows get it (`correct`), and the logits themselves."""
    logits_PK = head(hidden_PH).float()
    class_P = batch.probabilities_PK.argmax(dim=-1)
    correct = (logits_PK.argmax(dim=-1) == class_P).sum()
    return F.cross_entropy(logits_PK, class_P, reduction="sum"), {"correct": correct, "logits_PK": logits_PK}


def _teacher_probability(
    max_prob_N: torch.Tensor, batch: Batch, bridge: Literal["log", "eq8", "equal"], some_N: torch.Tensor | slice = ALL
) -> torch.Tensor:
    """P(s_i), Eq. 7-8, of every target token, or of some: the weighted mean over the teachers who gave its sequence."""
    assert batch.word_logprob_IW is not None
    teachers = len(batch.weight_IN)
    confidence_N = max_prob_N.new_zeros(len(batch.token_N))  # a word lies within one sequence: the others' 0 has no effect
    confidence_N[some_N] = max_prob_N
    logprob_IN = spread_word_scores(
        batch.word_logprob_IW, batch.word_N.expand(teachers, -1), confidence_N.expand(teachers, -1), bridge=bridge
    )
    prob_N = (batch.weight_IN * logprob_IN.exp()).sum(dim=0) / batch.weight_IN.sum(dim=0)
    return prob_N[some_N]
