"""`raw2s.losses.cross_entropy_rows` by passes in Triton: one over the logits for a row's sums, one that writes its gradient."""

import torch
from torch import Tensor

from raw2s.losses.cuda import cross_entropy_kernels as kernels
from raw2s.losses.cuda import cross_entropy_row_kernels as row_kernels
from raw2s.losses.cuda.launch import launch, launch_rows
from raw2s.losses.dirichlet import Scratch
from raw2s.losses.linear_rows import gradient_memory


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
    rows = len(logits)
    token = token.contiguous()
    token_prob, row_weight = (None if x is None else x.contiguous() for x in (token_prob, row_weight))
    found, values, figures = (logits.new_empty(shape, dtype=torch.float64) for shape in ((rows, 6), (rows, 5), (2, rows)))
    launch(kernels.sums, logits, token, found, SOFT=token_prob is not None)
    launch_rows(row_kernels.figures, found, token_prob, row_weight, figures, values, rows, gamma)
    if with_grad:
        grad = gradient_memory(logits, grad_dtype)
        launch(kernels.gradient, logits, token, values, grad, grad.stride(0))
    return tuple(figures.unbind())  # type: ignore[return-value]
