"""The model as training begins: on its device, in training's number format, and under ZeRO-3 only this rank's part of it.

Below stage 3 on a GPU the weights go from the file's pages straight onto it. DeepSpeed rounds them to bf16 before it copies its
fp32 master weights from them, so loading them in bf16 loses nothing more.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from torch import nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

from raw2s.config import LoraConfig, TrainingConfig
from raw2s.decoding.heads import output_head, require_plain_head
from raw2s.decoding.packing import packable
from raw2s.models.load import load_weights
from raw2s.training.engine import deepspeed_config
from raw2s.training.job import Job


def load_trainable(job: Job, workers: int) -> PreTrainedModel:
    """The job's model, ready to be trained: whole, or frozen with low-rank adapters in it and, in a classifier, a free head.

    A head that the checkpoint lacks and the adapters are drawn from the job's seed, alike at every ZeRO stage and on every device.
    All ranks must call. Raises ValueError for a recurrent architecture and for one whose head is not plain.
    """
    training = job.training
    dtype = torch.bfloat16 if training.precision == "bf16" else torch.float32
    with _partitioned(training, workers):
        device = None if training.zero_stage == 3 else _device()
        dropout = training.dropout == "checkpoint"
        model, missing = load_weights(job.model, job.form, job.classes, dtype=dtype, device=device, dropout=dropout)
        if training.zero_stage == 3:
            # It also notes how names of old checkpoints are read, and would write those names.
            model.__dict__["_weight_conversions"] = get_model_conversion_mapping(model, add_legacy=False)
    require_plain_head(model.config)
    packable(model)  # raises for a recurrent one
    torch.manual_seed(job.seed)
    if job.form == "classes" and missing:
        _draw_head(model, partitioned=training.zero_stage == 3)
    if training.lora is not None:
        from peft import inject_adapter_in_model  # an extra  # noqa: PLC0415

        inject_adapter_in_model(_peft_config(training.lora), model)  # in place
        if job.form == "classes":
            output_head(model).requires_grad_(True)
    return model


@contextmanager
def _partitioned(training: TrainingConfig, workers: int) -> Iterator[None]:
    """Under ZeRO-3, transformers takes every weight apart as it makes it, while an object of this kind lives; else nothing."""
    if training.zero_stage < 3:
        yield
        return
    alive = HfDeepSpeedConfig(deepspeed_config(training, workers))
    try:
        yield
    finally:
        unset_hf_deepspeed_config()
        del alive


def _device() -> torch.device | None:
    """Where DeepSpeed is going to put this rank's model; None for the host's memory."""
    accelerator = deepspeed.get_accelerator()
    if accelerator.device_name() == "cpu":
        return None
    return torch.device(accelerator.device_name(int(os.environ["LOCAL_RANK"])))


@torch.no_grad()
def _draw_head(model: PreTrainedModel, *, partitioned: bool) -> None:
    """A new classifier's head from the seed just set, by the architecture's own rule, in fp32 on the CPU, then copied."""
    head: Any = output_head(model)
    drawn = nn.Linear(head.in_features, head.out_features, bias=head.bias is not None, device="meta").to_empty(device="cpu")
    model._init_weights(drawn)
    with deepspeed.zero.GatheredParameters(list(head.parameters()), modifier_rank=0, enabled=partitioned):
        if not partitioned or dist.get_rank() == 0:
            for weight, value in zip(head.parameters(), drawn.parameters(), strict=True):
                weight.copy_(value)


def _peft_config(lora: LoraConfig) -> Any:
    import peft  # noqa: PLC0415

    modules = lora.target_modules
    return peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=modules)
