"""Cross entropy, soft label and auxiliary confidence of a block of rows, with the gradient in closed form."""

import torch
import torch.nn.functional as F
from torch import Tensor

from raw2s.losses.dirichlet import Scratch
from raw2s.losses.points import exp_of_shifted, put_back, take_points


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
    z_target, z_best = points.logit.unbind(1)
    shifted = logits.sub_(z_best.to(logits.dtype).unsqueeze(1))  # from here on z_best counts as 0
    prob = torch.ones_like(z_target) if token_prob is None else token_prob.to(z_target)
    exp = exp_of_shifted(shifted, out=shifted if token_prob is None else next(scratch))
    total = 1 + exp.sum(1).double()
    log_odds = z_target - z_best - total.log()
    if token_prob is None:
        entropy = torch.zeros_like(total)  # it is multiplied by 1 - P
    else:
        entropy = total.log() - torch.linalg.vecdot(exp, shifted).double() / total
    own_target, own_best = points.is_own.unbind(1)
    log_p, log_not_p = F.logsigmoid(log_odds), F.logsigmoid(-log_odds)
    p, not_p = log_p.exp(), log_not_p.exp()
    loss = (1 - gamma) * -(prob * log_p + (1 - prob) * (log_not_p - entropy))
    loss += gamma * -(own_target * log_p + own_best * (log_not_p - total.log()))
    max_prob = own_target * p + own_best * not_p / total
    if with_grad:
        weight = torch.ones_like(total) if row_weight is None else row_weight.to(total)
        # p - P, without the difference where P is 0 or 1
        target_grad = (1 - gamma) * ((1 - prob) * p - prob * not_p) + gamma * (own_best * p - own_target * not_p)
        others_grad = gamma * own_best - target_grad
        best_grad = others_grad / total - gamma * own_best
        torch.mul(exp, (weight * others_grad / total).to(exp.dtype).unsqueeze(1), out=logits)
        put_back(logits, points, weight.unsqueeze(1) * torch.stack([target_grad, best_grad], 1))
    return loss, max_prob
