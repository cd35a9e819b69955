"""Cross entropy, soft label and auxiliary confidence of a block of rows, with the gradient in closed form."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from raw2s.losses.dirichlet import Scratch
from raw2s.losses.points import Points, exp_of_shifted, put_back, take_points


def cross_entropy_rows(
    logits: Tensor,
    token: Tensor,
    token_prob: Tensor | None,
    row_weight: Tensor | None,
    scratch: Scratch,
    *,
    gamma: float = 0.0,
    with_grad: bool,
) -> tuple[Tensor, Tensor]:
    """(1 - γ) CE(soft label) + γ CE(own prediction) of (n, V) logits, and the largest probability: two (n,).

    The logits are lost: with `with_grad` they hold row_weight times the loss's gradient. With q the softmax of the others than
    the target s, p_s = σ(m) and 1 - p_s = σ(-m) come from m = z_s - logsumexp of the others, never from a difference.
    """
    points = take_points(logits, token)
    z_best = points.logit[:, 1:]
    shifted = logits.sub_(z_best.to(logits.dtype))  # from here on z_best counts as 0
    exp = exp_of_shifted(shifted, out=shifted if token_prob is None else next(scratch))
    total = 1 + exp.sum(1).double()
    weighted = None if token_prob is None else torch.linalg.vecdot(exp, shifted).double()
    row = row_terms(points, total, weighted, token_prob, gamma)
    if with_grad:
        others_grad, points_grad = row_gradients(points, row, gamma, row_weight)
        torch.mul(exp, others_grad.to(exp.dtype).unsqueeze(1), out=logits)
        put_back(logits, points, points_grad)
    return row.loss, row.max_prob


class Row(NamedTuple):
    """Figures of some rows, (n,), fp64. p is the target's probability."""

    loss: Tensor
    max_prob: Tensor
    target: Tensor
    """P."""
    p: Tensor
    not_p: Tensor
    total: Tensor


def row_terms(points: Points, total: Tensor, weighted: Tensor | None, token_prob: Tensor | None, gamma: float) -> Row:
    """From Σ exp(z - z_best) over all but the target, and Σ exp(z - z_best) (z - z_best) where there is a soft label."""
    z_target, z_best = points.logit.unbind(1)
    own_target, own_best = points.is_own.unbind(1)
    prob = torch.ones_like(z_target) if token_prob is None else token_prob.to(z_target)
    log_odds = z_target - z_best - total.log()
    entropy = torch.zeros_like(total) if weighted is None else total.log() - weighted / total  # times 1 - P
    log_p, log_not_p = F.logsigmoid(log_odds), F.logsigmoid(-log_odds)
    p, not_p = log_p.exp(), log_not_p.exp()
    loss = (1 - gamma) * -(prob * log_p + (1 - prob) * (log_not_p - entropy))
    loss += gamma * -(own_target * log_p + own_best * (log_not_p - total.log()))
    return Row(loss, own_target * p + own_best * not_p / total, prob, p, not_p, total)


def row_gradients(points: Points, row: Row, gamma: float, row_weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """What the others' exp(z - z_best) is to be multiplied by, (n,), and the gradients of the points, (n, 2)."""
    own_target, own_best = points.is_own.unbind(1)
    weight = torch.ones_like(row.total) if row_weight is None else row_weight.to(row.total)
    # p - P, without the difference where P is 0 or 1
    target_grad = (1 - gamma) * ((1 - row.target) * row.p - row.target * row.not_p)
    target_grad += gamma * (own_best * row.p - own_target * row.not_p)
    others_grad = gamma * own_best - target_grad
    best_grad = others_grad / row.total - gamma * own_best
    return weight * others_grad / row.total, weight.unsqueeze(1) * torch.stack([target_grad, best_grad], 1)
