"""N teachers as one target."""

import torch
from torch import Tensor

from raw2s.losses.conventions import at_least_float32


@torch.no_grad()
def mix_targets(targets: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of N teachers' distributions: (N, ..., K), weights (N,) or (N, ...) -> (..., K).

    Σ_i w_i L(p⁽ⁱ⁾) = L(Σ_i w_i p⁽ⁱ⁾) for every loss linear in the target, which cross entropy (Eq. 2) and the EDL loss in form
    `expected` (Eq. 4) are: naive and Bayesian multi-weak are one call on this mean. Weights are normalized to sum to 1 over
    the teachers of each item, so a teacher that did not label an item has weight 0 there.
    Raises ValueError for weights of another shape, negative, or all zero for some item.
    """
    targets = at_least_float32(targets)
    if weights.shape not in (targets.shape[:1], targets.shape[:-1]):
        raise ValueError(f"weights of shape {tuple(weights.shape)} fit no targets of shape {tuple(targets.shape)}")
    weights = weights.to(targets)
    total = weights.sum(0)
    if (weights < 0).any() or (total <= 0).any():
        raise ValueError("teacher weights must not be negative, nor all be zero for an item")
    share = (weights / total).reshape(weights.shape + (1,) * (targets.dim() - weights.dim()))
    return (share * targets).sum(0)
