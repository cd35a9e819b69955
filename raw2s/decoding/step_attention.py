"""A step's attention to a static cache, and its writes: on CUDA in Triton where that is installed, else torch's.

torch's kernels read all columns of the cache, for 64 queries a head at least, and take 2.5 times as long as reading keys and
values does. Those of `raw2s.decoding.cuda` read the columns between the first and the last that a beam of the prompt sees.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from raw2s.decoding import grouped_attention
from raw2s.losses.row_passes import has_triton

NAME = "raw2s_step"
MOST_ROWS = 128
"""Queries that share keys, beams times heads: more would not fit a program."""


def attend(
    module: nn.Module,
    query_BHMD: Tensor,
    key_BKSD: Tensor,
    value_BKSD: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Hugging Face's attention function over the whole buffers of a static cache; (B, M, H, D) out."""
    heads, beams, size = query_BHMD.shape[1:]
    if not in_triton(key_BKSD) or heads // key_BKSD.shape[1] * beams > MOST_ROWS:
        return grouped_attention.attend(module, query_BHMD, key_BKSD, value_BKSD, attention_mask, scaling, **kwargs)
    from raw2s.decoding.cuda import steps  # noqa: PLC0415

    return steps.attend(query_BHMD, key_BKSD, value_BKSD, attention_mask, size**-0.5 if scaling is None else scaling), None


def write(key_BKSD: Tensor, value_BKSD: Tensor, column_M: Tensor, new_key_BKMD: Tensor, new_value_BKMD: Tensor) -> None:
    """Put a step's keys and values into columns `column_M` of a cache's buffers."""
    if in_triton(key_BKSD):
        from raw2s.decoding.cuda import steps  # noqa: PLC0415

        steps.write(key_BKSD, value_BKSD, column_M, new_key_BKMD, new_value_BKMD)
    else:
        key_BKSD.index_copy_(2, column_M, new_key_BKMD)
        value_BKSD.index_copy_(2, column_M, new_value_BKMD)


def in_triton(states: Tensor) -> bool:
    """Whether a cache of such keys is Triton's: fp64, in which rounding decides nothing, stays torch's."""
    return states.is_cuda and states.dtype != torch.float64 and has_triton()


AttentionInterface.register(NAME, attend)
