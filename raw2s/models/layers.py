"""A model's decoder layers: compiled, with attention over blocks, or computed again in the backward pass.

None of it changes a weight or its name.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import Cache, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from raw2s.decoding.block_masks import use_block_masks

COMPILED_VARIANTS = 64
"""Graphs of one kind of layer at most: training or not, with gradients or not, the first shape and any shape."""


def use_gpu_kernels(model: PreTrainedModel) -> None:
    """FlexAttention over blocks inside compiled layers, for CUDA: the two belong together.

    Of four ways on one H200, ms a step of a 1.1 B Llama on rows of 400 tokens and of 40 (docs/training.md): neither 300 and 53,
    layers compiled 216 and 41, blocks 241 and 68 (launched one by one they cost more than a short row's dense mask), both 171 and 37.
    """
    use_block_masks(model)
    compile_layers(model)


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The model's layers, first to last."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def compile_layers(model: PreTrainedModel) -> None:
    """Compile every decoder layer, all layers of a kind into one graph, for forward passes without a cache.

    A graph takes seconds, at the first batch; the second shape that comes makes one for every shape. Raise no error here: what
    the compiler cannot do shows at the first batch.
    """
    torch._dynamo.config.recompile_limit = max(COMPILED_VARIANTS, torch._dynamo.config.recompile_limit)
    compiled: dict[type[nn.Module], Callable[..., Any]] = {}
    for layer in decoder_layers(model):
        kind = type(layer)
        if kind not in compiled:
            compiled[kind] = torch.compile(kind.forward)
        layer.forward = partial(_forward, compiled[kind], layer)


def checkpoint_layers(model: PreTrainedModel, share: float) -> None:
    """Keep only the input of the first `share` (0 to 1) of the layers and compute the rest of them again when it is needed.

    Around what is compiled, not in it (so call it after `compile_layers`): transformers' own checkpointing is inside the layer.
    """
    layers = decoder_layers(model)
    for layer in layers[: round(share * len(layers))]:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def _forward(compiled: Callable[..., Any], layer: nn.Module, *args: Any, **options: Any) -> Any:
    """A cache is told its layer's number, which would make a graph of every layer's own."""
    cached = any(isinstance(x, Cache) for x in (*args, *options.values()))
    return type(layer).forward(layer, *args, **options) if cached else compiled(layer, *args, **options)
