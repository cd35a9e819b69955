"""The backward pass of the fused heads: gradients that stand already, times what comes back for the loss."""

from collections.abc import Iterable

import torch
from torch import Tensor

from raw2s.losses.row_passes import in_triton


def scaled(grads: Iterable[Tensor | None], factor: Tensor) -> list[Tensor | None]:
    """Every gradient times the factor, (); None stays None.

    In place where the graph ends here: a second copy of the weight's gradient would be the peak of a training step.
    """
    keep = torch._C._autograd._get_current_graph_task_keep_graph()
    return [None if grad is None else _scaled(grad.clone() if keep else grad, factor) for grad in grads]


def _scaled(grad: Tensor, factor: Tensor) -> Tensor:
    if in_triton(grad):
        # torch would round the factor to the gradient's type, and go over the gradient for a factor of 1 too.
        from raw2s.losses.cuda.scaling import scale  # noqa: PLC0415

        return scale(grad, factor)
    return grad.mul_(factor)
