"""Cross entropy's passes over rows of fp32 logits, one program a row: the sums of a row, and its gradient.

The target and the student's best among the others are left to the caller, in fp64 (`raw2s.losses.points`). While a row is read,
every lane holds back its largest logit so far and adds the others: at the end the best of the row is among those held, and
no sum has to be corrected for it. A NaN is never held: it reaches the sums.
"""

from typing import Any

import triton
import triton.language as tl

NOTHING = tl.constexpr(-1e30)
"""A logit that counts for nothing."""
SAFE = tl.constexpr(60.0)
"""Sums of exp over a vocabulary stay finite and normal in fp32 for a largest logit within ± this."""


@triton.jit
def hold_back(z: tl.tensor, held: tl.tensor, at: tl.tensor, first: tl.tensor) -> Any:
    """(what to add, what to hold, where it stands less the lane)."""
    larger = z > held
    return tl.where(larger, held, z), tl.where(larger, z, held), tl.where(larger, first, at)


@triton.jit
def best_of(held: tl.tensor, at: tl.tensor, lane: tl.tensor) -> Any:
    """(the row's best, its place, what the other lanes hold)."""
    best = tl.max(held, 0)
    position = tl.min(tl.where(held == best, at + lane, 2147483647), 0)
    return best, position, tl.where(at + lane == position, NOTHING, held)


@triton.jit
def logits_at(start: tl.tensor, column: tl.tensor, vocabulary: tl.tensor, width: tl.tensor, PADDED: tl.constexpr) -> Any:
    """Some of a row's logits; rows are `width` apart at least, a multiple of 16 if `PADDED`, or loads would be of 4 bytes each."""
    z = tl.load(start + column, mask=column < width, other=NOTHING)
    if PADDED:
        z = tl.where(column < vocabulary, z, NOTHING)
    return z


@triton.jit
def _sweep(
    start: tl.tensor, target: tl.tensor, vocabulary: tl.tensor, width: tl.tensor, reference: tl.tensor,
    SOFT: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr,
) -> Any:  # fmt: skip
    lane = tl.arange(0, BLOCK)
    held = tl.full((BLOCK,), NOTHING, tl.float32)
    at = tl.zeros((BLOCK,), tl.int32)
    total = tl.zeros((BLOCK,), tl.float32)
    weighted = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, vocabulary, BLOCK):
        column = first + lane
        z = logits_at(start, column, vocabulary, width, PADDED)
        z, held, at = hold_back(tl.where(column == target, NOTHING, z), held, at, first)
        exp = tl.exp(z - reference)
        total += exp
        if SOFT:
            weighted += exp * (z - reference)
    best, position, rest = best_of(held, at, lane)
    exp = tl.exp(rest - reference)
    total += exp
    if SOFT:
        weighted += exp * (rest - reference)
    return best, position, tl.sum(total.to(tl.float64), 0), tl.sum(weighted.to(tl.float64), 0)


@triton.jit
def sums(
    logits: tl.tensor, stride: tl.tensor, vocabulary: tl.tensor, width: tl.tensor, token: tl.tensor, found: tl.tensor,
    SOFT: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """found (n, 6), fp64: z of the target, the best other, its place, reference r, Σ exp(z - r), Σ exp(z - r)(z - r) without both."""
    row = tl.program_id(0)
    start = logits + row.to(tl.int64) * stride
    target = tl.load(token + row).to(tl.int32)
    z_target = tl.load(start + target)
    reference = tl.full((), 0.0, tl.float32)
    best, position, total, weighted = _sweep(start, target, vocabulary, width, reference, SOFT, PADDED, BLOCK)
    if (best > SAFE) | (best < -SAFE):
        reference = best
        best, position, total, weighted = _sweep(start, target, vocabulary, width, reference, SOFT, PADDED, BLOCK)
    found += row * 6
    tl.store(found, z_target.to(tl.float64))
    tl.store(found + 1, best.to(tl.float64))
    tl.store(found + 2, position.to(tl.float64))
    tl.store(found + 3, reference.to(tl.float64))
    tl.store(found + 4, total)
    tl.store(found + 5, weighted)


@triton.jit
def gradient(
    logits: tl.tensor, stride: tl.tensor, vocabulary: tl.tensor, width: tl.tensor, token: tl.tensor, values: tl.tensor,
    grad: tl.tensor, grad_stride: tl.tensor, PADDED: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """exp(z - reference) · factor, and the gradients of the two points; values (n, 5), fp64: factor, reference, theirs, the best's place.

    `grad` may be the row's own memory in a narrower type: what is written has been read by all of the program's threads.
    """
    row = tl.program_id(0)
    start, out = logits + row.to(tl.int64) * stride, grad + row.to(tl.int64) * grad_stride
    values += row * 5
    factor, reference = tl.load(values).to(tl.float32), tl.load(values + 1).to(tl.float32)
    lane = tl.arange(0, BLOCK)
    for first in range(0, vocabulary, BLOCK):
        column = first + lane
        z = logits_at(start, column, vocabulary, width, PADDED)
        tl.debug_barrier()
        tl.store(out + column, (tl.exp(z - reference) * factor).to(grad.dtype.element_ty), mask=column < width)
    put_points(out, tl.load(token + row), values + 2)


@triton.jit
def put_points(out: tl.tensor, target: tl.tensor, values: tl.tensor) -> None:
    """Over the row's dense gradient, those of target and best; values: theirs, then the best's place."""
    tl.debug_barrier()
    tl.store(out + tl.load(values + 2).to(tl.int64), tl.load(values + 1).to(tl.float32).to(out.dtype.element_ty))
    tl.debug_barrier()
    tl.store(out + target, tl.load(values).to(tl.float32).to(out.dtype.element_ty))
