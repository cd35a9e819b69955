"""The output head at chosen positions only: what training, scoring and classification have in common."""

from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

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
