"""What every loss here shares: precision, the two kinds of target, reduction."""

from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["mean", "sum", "none"]


def at_least_float32(x: Tensor) -> Tensor:
    """bf16 and fp16 upcast to fp32; fp32 and fp64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def is_class(index: Tensor, classes: int) -> Tensor:
    """True at each item's class: (...) -> (..., classes). A comparison and not a scatter, which would not fuse."""
    return index.unsqueeze(-1) == torch.arange(classes, device=index.device)


def checked_target(target: Tensor, logits: Tensor) -> Tensor:
    """The target as a constant: indices as int64, probabilities in the precision of the arithmetic.

    Raises ValueError unless it is probabilities (..., K) or class indices (...) for logits (..., K).
    """
    is_probabilities = target.is_floating_point()
    if target.shape != (logits.shape if is_probabilities else logits.shape[:-1]):
        raise ValueError(
            f"target of shape {tuple(target.shape)} ({target.dtype}) does not fit logits of shape {tuple(logits.shape)}: "
            "give probabilities of the same shape, or integer class indices without the last dimension"
        )
    return target.detach().to(at_least_float32(logits).dtype) if is_probabilities else target.long()


def reduce_loss(loss: Tensor, reduction: Reduction) -> Tensor:
    """`mean`, `sum` or `none` over all items. Raises ValueError for another word."""
    match reduction:
        case "mean":
            return loss.mean()
        case "sum":
            return loss.sum()
        case "none":
            return loss
    raise ValueError(f"reduction is {reduction!r}; it must be 'mean', 'sum' or 'none'")
