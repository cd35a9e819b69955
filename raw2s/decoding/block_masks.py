"""FlexAttention over packed rows on CUDA: the mask as a table of blocks, made once a batch for all layers.

Blocks that no token of theirs sees are skipped, so a row's width costs nothing and all trees of a batch lie in one. The table
comes straight from `end_RT`, without a (T, T) mask: Dong et al. 2024, FlexAttention, section 4.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from raw2s.decoding.packing import PackedRows, packable

NAME = "raw2s_blocks"
"""Under which transformers knows `_attention`."""
BLOCK = 128
"""Tokens of a block, queries and keys: FlexAttention's own."""
_ATTENTION_DROPOUT = ("attn_pdrop", "attention_dropout")


def use_block_masks(model: PreTrainedModel) -> None:
    """Let the model's attention take what `block_mask` makes, by FlexAttention; any other mask goes to SDPA as before.

    A model that is not `packable` stays as it is: it takes no such mask.
    """
    if not packable(model):
        return
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def takes_block_masks(model: PreTrainedModel) -> bool:
    """Whether `use_block_masks` was called and holds now: FlexAttention has no dropout, so not where attention drops out."""
    config = model.config.get_text_config()
    return config._attn_implementation == NAME and not (model.training and drops_attention(config))


def drops_attention(config: PreTrainedConfig) -> bool:
    """Whether attention drops out in training."""
    return any(getattr(config, name, None) for name in _ATTENTION_DROPOUT)


def block_mask(rows: PackedRows, window: int | None = None) -> Any:
    """The rows' mask as a `BlockMask` of (R, 1, T, T): token q sees token k where `k <= q < end[k]`, at most `window` positions
    back.

    A block of keys is seen by a later block of queries where its largest end lies past their first token, and in full where its
    smallest end lies past their last; the diagonal's blocks are seen in part, and with a window all that are seen.
    """
    from torch.nn.attention.flex_attention import BlockMask  # imports torch's compiler  # noqa: PLC0415

    end_RT, position_RT = (
        rows.end_RT.int(),
        rows.position_ids_RT.int(),
    )  # the kernel compares them at every score: 64 bits cost twice
    width = end_RT.shape[1]
    blocks = -(-width // BLOCK)
    end_RBK = F.pad(end_RT, (0, blocks * BLOCK - width)).unflatten(1, (blocks, BLOCK))
    first_B = torch.arange(0, blocks * BLOCK, BLOCK, device=end_RT.device, dtype=torch.int32)
    earlier_BB = first_B < first_B[:, None]
    seen_RBB = (earlier_BB & (end_RBK.amax(dim=2)[:, None] > first_B[:, None])) | (first_B == first_B[:, None])
    full_RBB = earlier_BB & (end_RBK.amin(dim=2)[:, None] >= first_B[:, None] + BLOCK)

    def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < end_RT[row, key])

    mod = sees
    if window is not None:
        full_RBB = torch.zeros_like(full_RBB)

        def mod(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return sees(row, head, query, key) & (position_RT[row, query] - position_RT[row, key] < window)

    mask: Any = BlockMask.from_kv_blocks(
        *_listed(seen_RBB & ~full_RBB), *_listed(full_RBB), BLOCK_SIZE=BLOCK, mask_mod=mod, seq_lengths=(width, width)
    )
    mask.ndim = 4  # GPT-2 asks a mask for it
    return mask


def _listed(chosen_RBB: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks each block of queries has, (R, 1, B), and which, first to last, (R, 1, B, B)."""
    order_RBB = chosen_RBB.int().argsort(dim=-1, descending=True, stable=True)
    return chosen_RBB.sum(dim=-1, dtype=torch.int32)[:, None], order_RBB.int()[:, None]


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    **options: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in every layer: (R, heads, T, D) in, (R, T, heads, D) out."""
    from torch.nn.attention.flex_attention import BlockMask, flex_attention  # noqa: PLC0415

    if not isinstance(attention_mask, BlockMask):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    attend: Any = flex_attention if torch.compiler.is_compiling() else _compiled_attention()
    shared = query.shape[1] != key.shape[1]
    # A graph for any width cannot see that it is whole blocks, and would check every load.
    whole: Any = {"IS_DIVISIBLE": True} if query.is_cuda and query.shape[2] % BLOCK == 0 else None
    out = attend(
        query, key, value, block_mask=attention_mask, scale=options.get("scaling"), enable_gqa=shared, kernel_options=whole
    )
    return out.transpose(1, 2).contiguous(), None


@cache
def _compiled_attention() -> Callable[..., Tensor]:
    """FlexAttention as one kernel: uncompiled it would hold every score."""
    from torch.nn.attention.flex_attention import flex_attention  # noqa: PLC0415

    return torch.compile(flex_attention)
