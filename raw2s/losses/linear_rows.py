"""Output embedding and loss in one: logits exist for a chunk of rows at a time, and their gradient is spent where it arises.

The closed forms (`cross_entropy_rows`, `edl_rows`) overwrite a chunk's logits with the loss's gradient; the two products with
it, for the hidden states and for the embedding, are taken at once. The backward pass then only multiplies by a scalar.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

_CHUNK_BYTES = {"cpu": 64 * 2**20}
_CHUNK_BYTES_ON_ACCELERATORS = 512 * 2**20
_MIN_CHUNK_ROWS = 128
"""Fewer rows make the products slow: they would read the embedding more often than they use it."""
_BLOCK_ELEMENTS_ON_CPU = 2**18
"""Closed forms pass over their logits some forty times: on a CPU in blocks that stay in its cache."""

Rows = Callable[[Tensor, slice], tuple[Tensor, ...]]
"""(logits of some rows, which rows) -> figures per row; leaves the loss's gradient in the logits."""


class Gradients(NamedTuple):
    """Of the weighted sum of the rows' losses; None where none was asked for."""

    hidden_NH: Tensor | None
    weight_VH: Tensor | None
    bias_V: Tensor | None


def chunks(rows: int, vocabulary: int, like: Tensor) -> list[slice]:
    """Rows in chunks of equal size, within a budget for the chunk's logits."""
    budget = _CHUNK_BYTES.get(like.device.type, _CHUNK_BYTES_ON_ACCELERATORS)
    most = max(_MIN_CHUNK_ROWS, budget // (vocabulary * product_dtype(like).itemsize))
    size = math.ceil(rows / max(1, math.ceil(rows / most)))
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)] if rows else [slice(0, 0)]


def blocks(logits: Tensor, chunk: slice) -> Iterator[tuple[Tensor, slice]]:
    """A chunk's logits in blocks small enough for a CPU's cache; whole on other devices."""
    rows = max(1, _BLOCK_ELEMENTS_ON_CPU // logits.shape[1]) if logits.device.type == "cpu" else max(1, len(logits))
    start = chunk.start
    for block in logits.split(rows):
        yield block, slice(start, start + len(block))
        start += len(block)


def product_dtype(operand: Tensor) -> torch.dtype:
    """bf16 and fp16 operands accumulate in fp32, and the product stays there."""
    return torch.promote_types(operand.dtype, torch.float32)


def logits_of(hidden_CH: Tensor, weight_VH: Tensor, bias_V: Tensor | None) -> Tensor:
    """(C, V), fp32 at least."""
    logits_CV = _product(hidden_CH, weight_VH.T)
    return logits_CV if bias_V is None else logits_CV.add_(bias_V)


def run(
    hidden_NH: Tensor,
    weight_VH: Tensor,
    bias_V: Tensor | None,
    rows: Rows,
    *,
    wanted: tuple[bool, ...],
    logits_NV: Tensor | None = None,
) -> tuple[list[Tensor], Gradients]:
    """The figures of all rows, each (N,), and the gradients `wanted` for hidden states, weight and bias.

    `logits_NV`, when the caller has them, must be a single chunk; they are overwritten.
    """
    dtype = product_dtype(hidden_NH)
    hidden_grad = torch.empty_like(hidden_NH) if wanted[0] else None
    weight_grad = torch.zeros_like(weight_VH, dtype=dtype) if wanted[1] else None
    bias_grad = torch.zeros(len(weight_VH), dtype=dtype, device=weight_VH.device) if wanted[2] else None
    figures: list[tuple[Tensor, ...]] = []
    for chunk in chunks(len(hidden_NH), len(weight_VH), hidden_NH):
        logits_CV = logits_of(hidden_NH[chunk], weight_VH, bias_V) if logits_NV is None else logits_NV
        figures += [rows(block, where) for block, where in blocks(logits_CV, chunk)]
        if bias_grad is not None:
            bias_grad += logits_CV.sum(0)
        logits_grad_CV = logits_CV.to(hidden_NH.dtype)
        if hidden_grad is not None:
            hidden_grad[chunk] = _product(logits_grad_CV, weight_VH)
        if weight_grad is not None:
            _add_product(weight_grad, logits_grad_CV.T, hidden_NH[chunk])
    return [torch.cat(figure) for figure in zip(*figures, strict=True)], Gradients(
        hidden_grad,
        None if weight_grad is None else weight_grad.to(weight_VH.dtype),
        None if bias_grad is None or bias_V is None else bias_grad.to(bias_V.dtype),
    )


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, with fp32 sums and an fp32 result also from half-precision operands."""
    dtype = product_dtype(a)
    if a.dtype == dtype:
        return a @ b
    return torch.mm(a, b, out_dtype=dtype) if a.is_cuda else a.to(dtype) @ b.to(dtype)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    elif a.is_cuda:
        torch.addmm(total, a, b, out_dtype=total.dtype, out=total)
    else:
        total.addmm_(a.to(total.dtype), b.to(total.dtype))
