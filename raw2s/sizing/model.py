"""A model's sizes from its config: built on the meta device, where a tensor has a shape and no memory."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from raw2s.decoding.heads import output_head


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """Numbers of parameters, and the widths that activations depend on."""

    parameters: int
    trained: int
    """Of them those that get gradients: all, or the adapters and a classifier's head."""
    body: int
    """What six operations a token are done with in training: the decoder without its looked-up embeddings."""
    head: int
    """The same of the output head, at the positions where it runs."""
    head_rows: int
    """Entries of the vocabulary, or classes."""
    layers: int
    heads: int
    hidden: int
    key_value: int
    """Numbers that a token leaves in a layer's cache, keys and values together."""
    looked_up_rows: int
    """Entries of the input embedding."""


def meta_model(config: PretrainedConfig, *, classes: int = 0, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The model of a config on the meta device; with `classes`, the trunk with a linear head over so many."""
    with torch.device("meta"):
        if classes:
            config.num_labels = classes
            model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config, dtype=dtype)
        else:
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model


def model_size(model: PreTrainedModel, *, lora_rank: int | None = None, lora_modules: Iterable[str] | None = None) -> ModelSize:
    """The sizes of a model, on whatever device. `lora_rank`: only low-rank adapters are trained, beside every linear layer but the
    output head or beside those named, and of a classifier the head too (Hu et al. 2021: rank times inputs plus outputs).
    """
    config = model.config.get_text_config()
    body: Any = model.get_decoder()
    head = output_head(model)
    looked_up = {p for module in body.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    parameters = sum(p.numel() for p in model.parameters())
    heads = config.num_attention_heads
    shared = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    own_head = sum(p.numel() for p in head.parameters())
    adapters = 0
    if lora_rank is not None:
        adapters = sum(lora_rank * sum(shape) for shape in _adapted(model, head, lora_modules))
        adapters += own_head if hasattr(model, "score") else 0
    return ModelSize(
        parameters=parameters,
        trained=parameters if lora_rank is None else adapters,
        body=sum(p.numel() for p in body.parameters() if p not in looked_up),
        head=own_head,
        head_rows=len(head.get_parameter("weight")),
        layers=config.num_hidden_layers,
        heads=heads,
        hidden=config.hidden_size,
        key_value=2 * shared * size,
        looked_up_rows=len(model.get_input_embeddings().get_parameter("weight")),
    )


def _adapted(model: PreTrainedModel, head: nn.Module, names: Iterable[str] | None) -> list[torch.Size]:
    """The shapes of the matrices that adapters stand beside."""
    wanted = None if names is None else tuple(names)
    return [
        module.weight.shape
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D))
        and module is not head
        and (wanted is None or name.rpartition(".")[2] in wanted)
    ]
