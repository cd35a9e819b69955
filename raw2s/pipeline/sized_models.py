"""The models of a plan without their weights, each looked at once: stages share them, and so do settings that are tried."""

from functools import cache

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from raw2s.models.load import fuse_gelu, load_model_config, load_tokenizer, own_dropout
from raw2s.sizing.activations import LayerMemory, layer_memory
from raw2s.sizing.model import meta_model


@cache
def sized_model(name: str, classes: int, dtype: torch.dtype, fused: bool = False, dropout: bool = True) -> PreTrainedModel:
    """A model's architecture on the meta device; `fused` as actors on a GPU have its GELU. Downloads its config at most."""
    config = load_model_config(name)
    if not dropout:
        config.update(dict.fromkeys(own_dropout(config), 0.0))
    model = meta_model(config, classes=classes, dtype=dtype)
    return fuse_gelu(model) if fused else model


@cache
def sized_layer(model: PreTrainedModel, compiled: bool, repeated_heads: bool) -> LayerMemory:
    return layer_memory(model, compiled=compiled, repeated_heads=repeated_heads)


@cache
def sized_tokenizer(name: str) -> PreTrainedTokenizerBase:
    return load_tokenizer(name)
