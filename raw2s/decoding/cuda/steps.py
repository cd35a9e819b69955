"""How a beam step's kernels are launched: on a static cache, one program a prompt and head of keys."""

import math

import torch
import triton
from torch import Tensor

from raw2s.decoding.cuda import step_kernels

BLOCK_BYTES = 8_192
"""Of keys, and of values, that a program reads at once: five programs' reads ahead fit a Hopper's shared memory."""
WARPS = 4
STAGES = 3
SCAN = 1024
"""Mask columns that are looked through at once."""
LEAST = 16
"""Tensor cores take no fewer rows."""


def attend(query_BHMD: Tensor, key_BKSD: Tensor, value_BKSD: Tensor, mask_B1MS: Tensor, scale: float) -> Tensor:
    """softmax(scale · q kᵀ + mask) v, (B, M, H, D), of a step's M tokens; columns at the ends that no beam sees are not read.

    Keys and values are the whole buffers of a cache; H / K heads share them. All in one type, fp32 at most.
    """
    prompts, heads, beams, size = query_BHMD.shape
    key_heads, columns = key_BKSD.shape[1:3]
    assert key_BKSD.is_contiguous() and value_BKSD.is_contiguous() and query_BHMD.stride(3) == mask_B1MS.stride(3) == 1
    out_BMHD = query_BHMD.new_empty(prompts, beams, heads, size)
    with torch.cuda.device_of(query_BHMD):
        step_kernels.attend[(prompts * key_heads,)](
            query_BHMD, key_BKSD, value_BKSD, mask_B1MS, out_BMHD, scale * math.log2(math.e), columns, *query_BHMD.stride()[:3],
            *key_BKSD.stride()[:2], mask_B1MS.stride(0), mask_B1MS.stride(2), key_heads,
            **attend_constants(heads // key_heads, beams, size, key_BKSD.element_size()),
        )  # fmt: skip
    return out_BMHD


def attend_constants(groups: int, beams: int, size: int, item_bytes: int) -> dict[str, int]:
    """What the attention kernel is compiled for: `groups` heads share keys, a head has `size` numbers of `item_bytes`."""
    sizes = write_constants(beams, size)
    return sizes | {
        "GROUPS": groups,
        "ROWS": max(triton.next_power_of_2(groups * beams), LEAST),
        "SCAN": SCAN,
        "BLOCK": max(BLOCK_BYTES // (sizes["SIZE_UP"] * item_bytes), LEAST),
        "STAGES": STAGES,
        "num_warps": WARPS,
    }


def write(key_BKSD: Tensor, value_BKSD: Tensor, column_M: Tensor, new_key_BKMD: Tensor, new_value_BKMD: Tensor) -> None:
    """Put the step's keys and values into the cache's columns: two `index_copy_` as one kernel."""
    prompts, key_heads, beams, size = new_key_BKMD.shape
    assert key_BKSD.is_contiguous() and value_BKSD.is_contiguous() and new_key_BKMD.stride(3) == new_value_BKMD.stride(3) == 1
    with torch.cuda.device_of(key_BKSD):
        step_kernels.write[(prompts * key_heads,)](
            new_key_BKMD, new_value_BKMD, key_BKSD, value_BKSD, column_M, key_heads, *new_key_BKMD.stride()[:3],
            *new_value_BKMD.stride()[:3], *key_BKSD.stride()[:2], **write_constants(beams, size), num_warps=1,
        )  # fmt: skip


def write_constants(beams: int, size: int) -> dict[str, int]:
    """What the writing kernel is compiled for."""
    ups = {"BEAMS_UP": triton.next_power_of_2(beams), "SIZE_UP": max(triton.next_power_of_2(size), LEAST)}
    return {"BEAMS": beams, "SIZE": size} | ups
