"""Output embedding and loss in one: logits exist for a chunk of rows at a time, and their gradient is spent where it arises.

The closed forms (`cross_entropy_rows`, `edl_rows`) overwrite a chunk's logits with the loss's gradient; the two products with
it, for the hidden states and for the embedding, are taken at once. The backward pass then only multiplies by a scalar.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from raw2s.losses.dirichlet import FRESH, Scratch

_CHUNK_BYTES = {"cpu": 32 * 2**20}
_CHUNK_BYTES_ON_ACCELERATORS = 512 * 2**20
_CHUNK_SHARE_OF_A_GPU = 1 / 32
"""Of its memory: every chunk but the first reads and writes the weight's gradient again, so the best number of chunks is one."""
_COMPACT_ROWS = 1408
"""Fewer take less memory; every chunk rounds the sum of the weight's gradient once more, which four chunks of 4,096 rows show."""
_KEPT_BYTES = {"cpu": 128 * 2**20}
"""Logits up to this size may stand from forward to backward, which saves making them again; on accelerators, those of a chunk."""
_MIN_CHUNK_ROWS = 256
"""Fewer rows make the products slow: they would read the embedding more often than they use it."""
_BLOCK_ELEMENTS_ON_CPU = 2**19
"""The closed forms pass over their logits some thirty times: on a CPU in blocks that stay in its cache."""

Rows = Callable[[Tensor, slice, Scratch], tuple[Tensor, ...]]
"""(logits of some rows, which rows, scratch memory) -> figures per row; leaves the loss's gradient in the logits."""


class Plan(NamedTuple):
    """How the rows' closed forms go about it, and what may be spent on the sums."""

    in_place: bool = False
    """They need no scratch memory."""
    narrow: bool = False
    """They leave the gradient in the operands' type, in `gradient_memory`; else in the logits' own type."""
    compact: bool = False
    """Small chunks, and the weight's gradient summed over them in the operands' type."""


PLAIN = Plan()


class Gradients(NamedTuple):
    """Of the weighted sum of the rows' losses; None where none was asked for."""

    hidden_NH: Tensor | None
    weight_VH: Tensor | None
    bias_V: Tensor | None


def product_dtype(operand: Tensor) -> torch.dtype:
    """bf16 and fp16 operands accumulate in fp32, and the product stays there."""
    return torch.promote_types(operand.dtype, torch.float32)


def chunks_of_logits(
    hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, *, compact: bool = False
) -> Iterator[tuple[slice, Tensor]]:
    """(which rows, their logits), fp32 at least, in chunks of like size within a budget. Each overwrites the one before."""
    rows, vocabulary = len(hidden_NH), len(weight_VH)
    dtype = product_dtype(hidden_NH)
    size = chunk_rows(rows, vocabulary * dtype.itemsize, _chunk_bytes(hidden_NH.device), compact=compact)
    memory = _logits_memory(hidden_NH, size, vocabulary)
    for start in range(0, rows, size) if rows else [0]:
        chunk = slice(start, min(start + size, rows))
        logits_CV = _product(hidden_NH[chunk], weight_VH.T, memory[: chunk.stop - start])
        yield chunk, logits_CV if bias_V is None else logits_CV.add_(bias_V)


def chunk_rows(rows: int, row_bytes: int, budget: int, *, compact: bool = False) -> int:
    """How many of the rows, whose logits take `row_bytes` each, make a chunk within a budget of bytes."""
    most = max(_MIN_CHUNK_ROWS, budget // row_bytes)
    most = min(most, _COMPACT_ROWS) if compact else most
    return math.ceil(rows / max(1, math.ceil(rows / most)))


def gpu_chunk_bytes(memory: int) -> int:
    """The budget of a chunk on a GPU with so many bytes of memory."""
    return max(_CHUNK_BYTES_ON_ACCELERATORS, int(_CHUNK_SHARE_OF_A_GPU * memory))


CPU_CHUNK_BYTES = _CHUNK_BYTES["cpu"]


def _chunk_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return gpu_chunk_bytes(torch.cuda.get_device_properties(device).total_memory)
    return _CHUNK_BYTES.get(device.type, _CHUNK_BYTES_ON_ACCELERATORS)


def _logits_memory(hidden_NH: Tensor, rows: int, vocabulary: int) -> Tensor:
    """(rows, V), on GPUs with rows that begin at multiples of 64 bytes, which matrix products and row passes need to be fast."""
    width = math.ceil(vocabulary / 16) * 16 if hidden_NH.is_cuda else vocabulary
    return hidden_NH.new_empty(rows, width, dtype=product_dtype(hidden_NH))[:, :vocabulary]


def gradient_memory(logits_CV: Tensor, dtype: torch.dtype) -> Tensor:
    """The first part of every row's memory as (C, V) of a type that is no wider."""
    return logits_CV.view(dtype)[:, : logits_CV.shape[1]]


def may_be_kept(hidden_NH: Tensor, weight_VH: Tensor) -> bool:
    """Whether the logits of all rows are few enough to be held until the backward pass."""
    most = _KEPT_BYTES[hidden_NH.device.type] if hidden_NH.device.type in _KEPT_BYTES else _chunk_bytes(hidden_NH.device)
    return len(hidden_NH) * len(weight_VH) * product_dtype(hidden_NH).itemsize <= most


def all_logits(hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None) -> Tensor:
    """The logits of all rows at once, (N, V), fp32 at least."""
    hidden_NH, weight_VH = operands(hidden_NH, weight_VH)
    logits_NV = _product(hidden_NH, weight_VH.T, _logits_memory(hidden_NH, len(hidden_NH), len(weight_VH)))
    return logits_NV if bias_V is None else logits_NV.add_(bias_V)


def blocks(logits_CV: Tensor, chunk: slice, *, in_place: bool = False) -> Iterator[tuple[slice, Tensor]]:
    """A chunk's logits in blocks small enough for a CPU's cache, twice as large for a form `in_place`; whole on other devices."""
    whole = logits_CV.device.type != "cpu"
    rows = max(1, len(logits_CV) if whole else (2 if in_place else 1) * _BLOCK_ELEMENTS_ON_CPU // logits_CV.shape[1])
    start = chunk.start
    for block in logits_CV.split(rows):
        yield slice(start, start + len(block)), block
        start += len(block)


def run(
    hidden_NH: Tensor,
    weight_VH: Tensor,
    bias_V: Tensor | None,
    rows: Rows,
    *,
    wanted: tuple[bool, ...],
    logits_NV: Tensor | None = None,
    plan: Plan = PLAIN,
) -> tuple[list[Tensor], Gradients]:
    """The figures of all rows, each (N,), and the gradients `wanted` for hidden states, weight and bias.

    `logits_NV`, if the caller has them, are overwritten.
    """
    dtype, grad_dtype = product_dtype(hidden_NH), hidden_NH.dtype
    hidden_NH, weight_VH = operands(hidden_NH, weight_VH)
    hidden_grad = torch.empty_like(hidden_NH, dtype=grad_dtype) if wanted[0] else None
    weight_grad: Tensor | None = None
    bias_grad = weight_VH.new_zeros(len(weight_VH), dtype=dtype) if wanted[2] else None
    figures: list[tuple[Tensor, ...]] = []
    buffers: list[Tensor] = []
    chunks = [(slice(0, len(hidden_NH)), logits_NV)] if logits_NV is not None else chunks_of_logits(
        hidden_NH, weight_VH, bias_V, compact=plan.compact
    )  # fmt: skip
    for chunk, logits_CV in chunks:
        in_place = plan.in_place
        figures += [rows(block, where, _scratch(block, buffers)) for where, block in blocks(logits_CV, chunk, in_place=in_place)]
        if not any(wanted):
            continue
        narrow = plan.narrow
        logits_grad_CV = gradient_memory(logits_CV, hidden_NH.dtype) if narrow else logits_CV.to(hidden_NH.dtype)
        if bias_grad is not None:
            bias_grad += (logits_grad_CV if narrow else logits_CV).sum(0, dtype=dtype)
        if hidden_grad is not None:
            _put_product(hidden_grad[chunk], logits_grad_CV, weight_VH, compact=plan.compact)
        if wanted[1]:
            exact = not plan.compact and len(logits_CV) < len(hidden_NH)
            weight_grad = _add_product(weight_grad, logits_grad_CV.T, hidden_NH[chunk], dtype if exact else hidden_NH.dtype)
    if weight_grad is not None:
        weight_grad = weight_grad.to(grad_dtype)
    if bias_grad is not None and bias_V is not None:
        bias_grad = bias_grad.to(bias_V.dtype)
    return [torch.cat(figure) for figure in zip(*figures, strict=True)], Gradients(hidden_grad, weight_grad, bias_grad)


def operands(hidden_NH: Tensor, weight_VH: Tensor) -> tuple[Tensor, Tensor]:
    """Only CUDA multiplies half-precision operands into an fp32 product: elsewhere they are fp32 themselves."""
    if hidden_NH.is_cuda:
        return hidden_NH, weight_VH
    dtype = product_dtype(hidden_NH)
    return hidden_NH.to(dtype), weight_VH.to(dtype)


def _product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    dtype = product_dtype(a)
    if a.dtype == dtype:
        return torch.mm(a, b, out=out)
    return torch.mm(a, b, out_dtype=dtype) if out is None else torch.mm(a, b, out_dtype=dtype, out=out)


def _put_product(out: Tensor, a: Tensor, b: Tensor, *, compact: bool) -> None:
    """a b into `out`; `compact`: without a copy in fp32, if `out` has the operands' type, and cuBLAS rounds."""
    if compact and out.dtype == a.dtype:
        torch.mm(a, b, out=out)
    else:
        out.copy_(_product(a, b))


def _add_product(total: Tensor | None, a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """total + a b, in `dtype`, in the total's memory; a product alone is rounded once, whatever its type."""
    if a.dtype == dtype:
        return torch.mm(a, b) if total is None else total.addmm_(a, b)
    if total is None:
        return torch.mm(a, b, out_dtype=dtype)
    return torch.addmm(total, a, b, out_dtype=dtype, out=total)


def _scratch(block: Tensor, buffers: list[Tensor]) -> Scratch:
    """On a CPU the same buffers for every block: fresh memory costs a page fault per 4 KiB, more than the arithmetic."""
    if block.device.type != "cpu":
        yield from FRESH
    for i in itertools.count():
        if i == len(buffers):
            buffers.append(torch.empty_like(block))  # the first block is the largest
        yield buffers[i][: len(block)]
