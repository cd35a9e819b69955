"""Cross entropy against classes, distributions, and the soft labels of section 4.2 (Fig. 2, stage 3)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from raw2s.losses.conventions import Reduction, at_least_float32, checked_target, is_class, reduce_loss


def cross_entropy(logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0, reduction: Reduction = "mean") -> Tensor:
    """CE(f(x), y) of Eq. 1-2 in nats.

    logits: (..., K). target: probabilities (..., K), or class indices (...); never differentiated. Computed in fp32 at least.
    label_smoothing: ε of (1 - ε) y + ε/K in place of y (Szegedy et al. 2016, arXiv 1512.00567, section 7).
    Raises ValueError for a target that fits neither shape.
    """
    target = checked_target(target, logits)
    log_p = at_least_float32(logits).log_softmax(-1)
    if target.is_floating_point():
        loss = -(target * log_p).sum(-1)
    else:
        loss = -log_p.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    if label_smoothing:
        loss = (1 - label_smoothing) * loss - label_smoothing * log_p.mean(-1)
    return reduce_loss(loss, reduction)


@torch.no_grad()
def soft_label(logits: Tensor, token: Tensor, token_prob: Tensor) -> Tensor:
    """The weak label as a distribution over the student's vocabulary (section 4.2): (..., V), (...), (...) -> (..., V).

    The target token gets the teachers' probability P; the others share 1 - P in the student's own proportions,
    p_j (1 - P) / (1 - p_s). A constant: the student's own distribution is not differentiated through. At least fp32.
    """
    others = _without(at_least_float32(logits), token).softmax(-1)
    prob = token_prob.to(others.dtype).unsqueeze(-1)
    return torch.where(is_class(token, logits.shape[-1]), prob, (1 - prob) * others)


def soft_label_cross_entropy(logits: Tensor, token: Tensor, token_prob: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Cross entropy against the constant `soft_label(logits, token, token_prob)`, in nats, without that target in the graph.

    logits: (..., V). token, token_prob: (...), the target pieces s and the teachers' probabilities P for them.
    With q the student's softmax without s and m = z_s - logsumexp_{j≠s} z_j, so that p_s = σ(m), the value is

        -P log σ(m) - (1 - P) log σ(-m) + (1 - P) H(q),

    where H(q) counts as a constant. The gradient, (p_s - P) (onehot_s - q), is p - soft label exactly.
    """
    z = at_least_float32(logits)
    prob = token_prob.detach().to(z.dtype)
    others = _without(z, token)
    log_odds = z.gather(-1, token.unsqueeze(-1)).squeeze(-1) - others.logsumexp(-1)
    with torch.no_grad():
        entropy = torch.special.entr(others.softmax(-1)).sum(-1)
    return reduce_loss(-prob * F.logsigmoid(log_odds) - (1 - prob) * (F.logsigmoid(-log_odds) - entropy), reduction)


def _without(logits: Tensor, token: Tensor) -> Tensor:
    """The logits of the other pieces: their softmax never divides by 1 - p_s, which is 0 in fp32 for a confident student."""
    return logits.masked_fill(is_class(token, logits.shape[-1]), -torch.inf)
