"""Trained weights as Hugging Face has them on disk, gathered and written a shard at a time: no process holds the model whole."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import deepspeed
import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.core_model_loading import WeightRenaming, revert_weight_conversion

SHARD_BYTES = 2 * 10**9
"""Of a file at most, unless one weight is larger: what rank 0 holds in host memory to write it."""
ADAPTER = "default"
"""What peft calls the only adapter in a layer."""


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A tensor to be saved: how it is read, and from which parameters, which ZeRO-3 gathers for that."""

    like: torch.Tensor
    """Its shape and type, on the meta device."""
    read: Callable[[], torch.Tensor]
    parameters: list[nn.Parameter] = field(default_factory=list)


def merged_weights(model: PreTrainedModel) -> dict[str, Weight]:
    """Every weight and kept buffer under its Hugging Face name: tied ones once, low-rank updates merged into what they adapt."""
    adapted = {f"{name}.base_layer.weight": module for name, module in model.named_modules() if hasattr(module, "lora_A")}
    found: dict[str, Weight] = {}
    seen: set[int] = set()
    for name, value in model.state_dict(keep_vars=True).items():
        if ".lora_" in name or id(value) in seen:
            continue
        seen.add(id(value))
        if name in adapted:
            layer = adapted[name]
            update = [p for key, p in layer.named_parameters() if key.startswith("lora_")]
            weight = Weight(like=_like(value), read=partial(_merge, layer, value), parameters=[value, *update])
        else:
            weight = _plain(value)
        found[name.replace(".base_layer.", ".")] = weight
    return found


def adapter_weights(model: PreTrainedModel) -> dict[str, Weight]:
    """The low-rank matrices alone, under peft's names."""
    return {
        f"base_model.model.{name.replace(f'.{ADAPTER}', '')}": _plain(value)
        for name, value in model.state_dict(keep_vars=True).items()
        if ".lora_" in name
    }


def write_weights(
    engine: deepspeed.DeepSpeedEngine, weights: dict[str, Weight], folder: Path, *, rank: int, name: str = "model"
) -> None:
    """The weights as `<name>.safetensors`, or as shards and their index. Rank 0 writes; all ranks must call."""
    model = engine.module.model
    partitioned = engine.zero_optimization_stage() == 3
    # Where transformers makes several weights into one as it reads (experts), it needs them all to turn them back.
    bound = all(isinstance(found, WeightRenaming) for found in getattr(model, "_weight_conversions", None) or [])
    split = split_torch_state_dict_into_shards(
        {key: weight.like for key, weight in weights.items()},
        filename_pattern=f"{name}{{suffix}}.safetensors",
        max_shard_size=SHARD_BYTES if bound else sys.maxsize,
    )
    files: dict[str, str] = {}
    for file, keys in split.filename_to_tensors.items():
        shard = {}
        for key in keys:
            weight = weights[key]
            with deepspeed.zero.GatheredParameters(weight.parameters, enabled=partitioned), torch.no_grad():
                if rank == 0:
                    shard[key] = weight.read().to("cpu", copy=True).contiguous()
        if rank == 0:
            shard = revert_weight_conversion(model, shard)  # the checkpoint's own names
            save_file(shard, folder / file, metadata={"format": "pt"})
            files |= dict.fromkeys(shard, file)
    if rank == 0 and split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": files}
        (folder / f"{name}.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def _plain(value: torch.Tensor) -> Weight:
    own = [value] if isinstance(value, nn.Parameter) else []
    return Weight(like=_like(value), read=value.detach, parameters=own)


def _like(value: torch.Tensor) -> torch.Tensor:
    """Of a weight that ZeRO-3 has taken apart too."""
    return torch.empty(getattr(value, "ds_shape", value.shape), dtype=value.dtype, device="meta")


def _merge(layer: Any, weight: torch.Tensor) -> torch.Tensor:
    update: torch.Tensor = layer.get_delta_weight(ADAPTER)
    return (weight.float() + update.float()).to(weight.dtype)
