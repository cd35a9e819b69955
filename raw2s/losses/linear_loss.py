"""Any loss over tokens from its formula on logits: output embedding, formula and gradient for a few rows at a time.

Autograd runs inside a block of rows and its result, the gradient of that block's logits, is spent at once, as that of the closed
forms is (`raw2s.losses.heads`): these remain the fast path for the losses that have one.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from raw2s.losses import linear_rows
from raw2s.losses.confidence import mix_with_own_prediction
from raw2s.losses.conventions import is_class
from raw2s.losses.cross_entropy import soft_label
from raw2s.losses.dirichlet import Scratch
from raw2s.losses.heads import HeadLoss, TokenProb, _operands
from raw2s.losses.scaling import scaled

_BYTES_AT_ONCE = 256 * 2**20
"""Of logits that a formula sees: autograd holds several tensors of that size, and a chunk on a GPU is larger."""

LossOnLogits = Callable[[Tensor, Tensor], Tensor]
"""(logits (R, V), fp32 at least; target probabilities (R, V), a constant) -> the loss of every row (R,)."""


def linear_loss(
    loss_on_logits: LossOnLogits,
    hidden_NH: Tensor,
    weight_VH: Tensor,
    token_N: Tensor,
    token_prob: TokenProb | None = None,
    *,
    bias_V: Tensor | None = None,
    row_weight_N: Tensor | None = None,
    gamma: float = 0.0,
) -> HeadLoss:
    """Σ_n w_n loss_on_logits(z_n, (1 - γ) y_n + γ onehot(own prediction)), z = hidden_NH · weight_VHᵀ + bias_V (Eq. 1, 2, 5).

    y_n, `token_prob`, row weights and gradients as in `linear_cross_entropy`; through a `FusedHead` by
    `head(partial(linear_loss, loss_on_logits), hidden_NH, token_N, ...)`. A function `token_prob` costs one more product with the
    weight. What else the formula reads gets no gradient. In `nll_N` stands every row's loss without weight.
    Raises ValueError for shapes that do not fit together, and for a formula that gives anything but one loss a row.

    >>> zeros, token = torch.zeros(2, 3), torch.tensor([1, 4])
    >>> linear_loss(lambda z, y: -(y * z.log_softmax(-1)).sum(-1), zeros, torch.zeros(5, 3), token).loss  # 2 log 5
    tensor(3.2189)
    """
    hidden_NH, weight_VH = _operands(hidden_NH, weight_VH, bias_V, token_N, token_prob, row_weight_N)
    target = (token_N, token_prob, row_weight_N, gamma)
    loss, loss_N, max_prob_N = _ByFormula.apply(hidden_NH, weight_VH, bias_V, loss_on_logits, target, torch.is_grad_enabled())
    return HeadLoss(loss, loss_N, None, max_prob_N)


class _ByFormula(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        loss_on_logits: LossOnLogits,
        target: tuple[Tensor, TokenProb | None, Tensor | None, float],
        grad_enabled: bool,
    ) -> tuple[Tensor, ...]:
        token_N, token_prob, row_weight_N, gamma = target
        wanted = tuple(grad_enabled and needed for needed in ctx.needs_input_grad[:3])
        with torch.autocast(hidden_NH.device.type, enabled=False):
            if callable(token_prob):
                operands = linear_rows.operands(hidden_NH, weight_VH)
                token_prob = token_prob(torch.cat([_max_prob(z) for _, z in linear_rows.chunks_of_logits(*operands, bias_V)]))

            def of_rows(logits_RV: Tensor, where: slice, scratch: Scratch) -> tuple[Tensor, ...]:
                max_prob_R, losses, start = _max_prob(logits_RV), [], where.start
                for part_RV in logits_RV.split(max(1, _BYTES_AT_ONCE // (logits_RV.shape[1] * logits_RV.itemsize))):
                    rows = slice(start, start + len(part_RV))
                    prob_R, weight_R = (None if x is None else x[rows] for x in (token_prob, row_weight_N))
                    target_RV = _target(part_RV, token_N[rows], prob_R, gamma)
                    losses.append(_with_gradient(loss_on_logits, part_RV, target_RV, weight_R, wanted=any(wanted)))
                    start = rows.stop
                return torch.cat(losses), max_prob_R

            figures, grads = linear_rows.run(hidden_NH, weight_VH, bias_V, of_rows, wanted=wanted)
        ctx.save_for_backward(*grads)
        loss_N, max_prob_N = figures
        ctx.mark_non_differentiable(loss_N, max_prob_N)
        return (loss_N if row_weight_N is None else loss_N * row_weight_N).sum().to(loss_N.dtype), loss_N, max_prob_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        return *scaled(ctx.saved_tensors, grad_loss), None, None, None


def _target(logits_RV: Tensor, token_R: Tensor, prob_R: Tensor | None, gamma: float) -> Tensor:
    """(1 - γ) onehot or soft label + γ the student's own prediction, a constant: (R, V)."""
    label_RV = (
        is_class(token_R, logits_RV.shape[1]).to(logits_RV.dtype) if prob_R is None else soft_label(logits_RV, token_R, prob_R)
    )
    return mix_with_own_prediction(label_RV, logits_RV, gamma) if gamma else label_RV


def _with_gradient(
    loss_on_logits: LossOnLogits, logits_RV: Tensor, target_RV: Tensor, weight_R: Tensor | None, *, wanted: bool
) -> Tensor:
    """Every row's loss; where `wanted`, the weighted sum's gradient overwrites the logits."""
    with torch.set_grad_enabled(wanted):
        own_RV = logits_RV.detach().requires_grad_(wanted)
        loss_R = loss_on_logits(own_RV, target_RV)
    if loss_R.shape != logits_RV.shape[:1]:
        raise ValueError(
            f"the formula gives shape {tuple(loss_R.shape)} for logits {tuple(logits_RV.shape)}; give one loss a row, without a mean"
        )
    if wanted:
        weight_R = torch.ones_like(loss_R) if weight_R is None else weight_R.to(loss_R)
        logits_RV.copy_(torch.autograd.grad(loss_R, own_RV, weight_R)[0])
    return loss_R.detach()


def _max_prob(logits_RV: Tensor) -> Tensor:
    """The student's largest probability: (R, V) -> (R,)."""
    return (logits_RV.amax(-1) - logits_RV.logsumexp(-1)).exp()
