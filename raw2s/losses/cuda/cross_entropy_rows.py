"""`raw2s.losses.cross_entropy_rows` by passes in Triton: one over the logits for a row's sums, one that writes its gradient."""

import torch
from torch import Tensor

from raw2s.losses.cross_entropy_rows import row_gradients, row_terms
from raw2s.losses.cuda import cross_entropy_kernels as kernels
from raw2s.losses.cuda.launch import launch
from raw2s.losses.dirichlet import Scratch
from raw2s.losses.linear_rows import gradient_memory
from raw2s.losses.points import points_of


def cross_entropy_rows(
    logits: Tensor,
    token: Tensor,
    token_prob: Tensor | None,
    row_weight: Tensor | None,
    _: Scratch,
    *,
    gamma: float = 0.0,
    with_grad: bool,
    grad_dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """As its namesake, of (n, V) fp32 logits; `with_grad`, their gradient is in their `gradient_memory`, else they are left alone."""
    found = logits.new_empty(len(logits), 6, dtype=torch.float64)
    launch(kernels.sums, logits, token, found, SOFT=token_prob is not None)
    points = points_of(token, found[:, 2].long(), found[:, :2])
    reference, others, weighted = found[:, 3], found[:, 4], found[:, 5]
    offset = reference - found[:, 1]
    scale = offset.exp()  # from the reference to the best, which the sums are to have
    entropy_sum = None if token_prob is None else scale * (weighted + others * offset)
    row = row_terms(points, 1 + scale * others, entropy_sum, token_prob, gamma)
    if with_grad:
        others_grad, points_grad = row_gradients(points, row, gamma, row_weight)
        values = torch.cat([torch.stack([others_grad * scale, reference], 1), points_grad, found[:, 2:3]], 1)
        grad = gradient_memory(logits, grad_dtype)
        launch(kernels.gradient, logits, token, values, grad, grad.stride(0))
    return row.loss, row.max_prob
