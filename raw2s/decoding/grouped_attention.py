"""Attention of few queries to a long cache where several heads share keys and values (Llama 3, Qwen2, Mistral).

Hugging Face repeats the keys and values for every head of a group before attention with a mask: for a step of a beam search that
copies the whole cache, several times over. Here the heads of a group are more queries of one head instead; the result is the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

NAME = "raw2s_grouped"


@contextmanager
def grouped_heads(model: PreTrainedModel, name: str = NAME) -> Iterator[None]:
    """Within it, `model` attends in this way, or by the function of that name: only with a mask of four dimensions.

    Eager attention stays what it is.
    """
    config = model.config.get_text_config()
    before = config._attn_implementation
    if before != "eager":
        config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


def attend(
    module: nn.Module,
    query_BHMD: Tensor,
    key_BKSD: Tensor,
    value_BKSD: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Hugging Face's attention function for H heads, of which H / K share keys and values; the mask is (B, 1, M, S)."""
    groups = query_BHMD.shape[1] // key_BKSD.shape[1]
    query = query_BHMD.unflatten(1, (-1, groups)).flatten(2, 3)
    mask = attention_mask.repeat(1, 1, groups, 1) if groups > 1 else attention_mask
    found = torch.nn.functional.scaled_dot_product_attention(query, key_BKSD, value_BKSD, attn_mask=mask, scale=scaling)
    found_BHMD = found.unflatten(2, (groups, -1)).flatten(1, 2)
    return found_BHMD.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, attend)
