"""A tensor times a number that is on the GPU, in place. For a factor of 1 nothing is read, and nobody waits to learn that it is."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 2048
WARPS = 8
PROGRAMS = 2048
"""At most: more than a card runs at once, and few enough that starting them costs nothing where they end at once."""


@triton.jit
def multiply(x: tl.tensor, factor: tl.tensor, size: tl.tensor, BLOCK: tl.constexpr) -> None:
    by = tl.load(factor).to(tl.float32)
    if by != 1.0:
        for first in range(tl.program_id(0).to(tl.int64) * BLOCK, size, tl.num_programs(0) * BLOCK):
            at = first + tl.arange(0, BLOCK)
            value = tl.load(x + at, mask=at < size, other=0.0).to(tl.float32) * by
            tl.store(x + at, value.to(x.dtype.element_ty), mask=at < size)


def scale(x: Tensor, factor: Tensor) -> Tensor:
    """x, contiguous, which it overwrites, times the factor, (): the product in fp32, rounded once."""
    kernel: Any = multiply
    programs = min(PROGRAMS, triton.cdiv(x.numel(), BLOCK))
    if programs:
        with torch.cuda.device_of(x):
            kernel[(programs,)](x, factor, x.numel(), BLOCK=BLOCK, num_warps=WARPS)
    return x
