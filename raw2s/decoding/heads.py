"""The output head at chosen positions only: what training, scoring and classification have in common."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedConfig, PreTrainedModel

from raw2s.decoding.block_masks import block_mask, takes_block_masks
from raw2s.decoding.packing import Layout, PackedRows, attention_mask, by_layer_type, packable, padding_mask

_LOGIT_TRANSFORMS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")


def hidden_at(model: PreTrainedModel, rows: PackedRows, index_N: Tensor) -> Tensor:
    """The last hidden states at N flat indices (row * T + column) of rows in the layout of `layout_for`: (N, H)."""
    where: dict[str, Any] = {"attention_mask": padding_mask(rows)}
    if packable(model):
        where = {"attention_mask": _seen(model, rows), "position_ids": rows.position_ids_RT}
    hidden_RTH = model.get_decoder()(input_ids=rows.input_ids_RT, use_cache=False, **where).last_hidden_state
    return hidden_RTH.flatten(0, 1)[index_N]


def _seen(model: PreTrainedModel, rows: PackedRows) -> Any:
    if takes_block_masks(model):
        return by_layer_type(rows, model.config, partial(block_mask, rows))
    return attention_mask(rows, model.config, model.dtype)


def layout_for(model: PreTrainedModel) -> Layout:
    """How rows for `hidden_at` are laid out: best on CUDA in few shapes, for a new one costs a plan or a kernel.

    Raises ValueError for a recurrent model.
    """
    if not packable(model):
        return "one_text_a_row"
    if takes_block_masks(model):
        return "one_row"
    return "bucketed_rows" if model.device.type == "cuda" else "rows"


def next_token_logits(
    model: PreTrainedModel,
    ids_BT: Tensor,
    mask: Tensor | dict[str, Tensor],
    position_BT: Tensor,
    cache: Cache,
    *,
    last_only: bool = False,
) -> Tensor:
    """The logits after each of the tokens, (B, T, V), or after the last, (B, 1, V); in fp32 at least, as `head_logits`.

    `cache` holds the tokens before and takes these; `mask` is the decoder's `attention_mask`.
    """
    hidden_BTH = model.get_decoder()(
        input_ids=ids_BT, attention_mask=mask, position_ids=position_BT, past_key_values=cache, use_cache=True
    ).last_hidden_state
    if last_only:
        hidden_BTH = hidden_BTH[:, -1:]
    return head_logits(output_head(model), hidden_BTH.flatten(0, 1)).unflatten(0, hidden_BTH.shape[:2])


def head_logits(head: nn.Module, hidden_NH: Tensor) -> Tensor:
    """The head's product, (N, V), in fp32, or in fp64 for a model in fp64.

    A product in bf16 is summed in fp32 anyway: rounded to bf16 before the softmax, a logit of 20 would be wrong by 0.06.
    """
    weight_VH, bias_V = head.get_parameter("weight"), getattr(head, "bias", None)
    dtype = torch.promote_types(weight_VH.dtype, torch.float32)
    if weight_VH.is_cuda and weight_VH.dtype != dtype:
        logits_NV = torch.mm(hidden_NH, weight_VH.T, out_dtype=dtype)
    else:  # a CPU has no such product; a cast to the same type copies nothing
        logits_NV = torch.mm(hidden_NH.to(dtype), weight_VH.to(dtype).T)
    return logits_NV if bias_V is None else logits_NV.add_(bias_V)


def output_head(model: PreTrainedModel) -> nn.Module:
    """The module from (N, H) to (N, V), or (N, K) of a classifier: a large part of a small model, so run it on few rows."""
    head: Any = model.score if hasattr(model, "score") else model.get_output_embeddings()
    return head


def require_plain_head(config: PreTrainedConfig) -> None:
    """Raise ValueError for a model that bends its logits after the head.

    Gemma, Cohere, Granite and Falcon-H1 scale or cap logits outside the head module, where `output_head` misses it.
    """
    for name in _LOGIT_TRANSFORMS:
        if getattr(config.get_text_config(), name, None) not in (None, 1.0):
            raise ValueError(f"{config.model_type} changes its logits after the output head ({name}): not supported")
