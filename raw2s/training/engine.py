"""The DeepSpeed engine of one model: what a `TrainingConfig` says, in DeepSpeed's words."""

from importlib import import_module
from pathlib import Path
from typing import Any

import deepspeed
import torch
from transformers import PreTrainedModel

from raw2s.config import TrainingConfig
from raw2s.decoding.block_masks import use_block_masks
from raw2s.models.layers import checkpoint_layers, compile_layers, use_gpu_kernels
from raw2s.training.checkpoints import load_engine, universal_checkpoint
from raw2s.training.objectives import PackedModel

# DeepSpeed would compile shared-memory collectives for CPUs at the first start (35 CPU seconds each worker, and a C++ compiler
# must be there); gloo does the same work.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _load_muon() -> None:
    """DeepSpeed asks of every optimizer of ZeRO whether it is its Muon, whose import loads Inductor's compiler for nothing.

    With another backend it takes 0.3 CPU seconds a worker in place of 1.0.
    """
    if not hasattr(torch.compiler, "set_default_backend"):  # torch below 2.13
        return
    backend = torch.compiler.get_default_backend()
    torch.compiler.set_default_backend("eager")
    import_module("deepspeed.runtime.zero.muon.muon_optimizer")  # as an import statement a linter took it for unused
    torch.compiler.set_default_backend(backend)


def make_engine(
    model: PackedModel, training: TrainingConfig, workers: int, *, universal: bool = False
) -> deepspeed.DeepSpeedEngine:
    """The model under ZeRO with torch's Adam or AdamW. `universal`: it is going to load a universal checkpoint."""
    _prepare_layers(model.model, training)
    optimizer_type = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[training.optimizer]
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = optimizer_type(weights, lr=training.learning_rate, weight_decay=training.weight_decay, fused=True)
    config = deepspeed_config(training, workers)
    if universal:
        config["checkpoint"] = {"load_universal": True}
    if training.zero_stage:
        _load_muon()
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    if workers == 1 and training.zero_stage == 0:
        engine.enable_backward_allreduce = False  # it would copy every gradient there and back for an average of one
    return engine


def _prepare_layers(model: PreTrainedModel, training: TrainingConfig) -> None:
    """Attention, compilation and recomputation as the config has them; before the engine, whose hooks go around."""
    on_gpu = training.gpus_per_worker > 0
    if training.compiles_layers and on_gpu:
        use_gpu_kernels(model)
    elif training.compiles_layers:
        compile_layers(model)
    elif on_gpu and training.zero_stage == 3:
        use_block_masks(model)  # a model that needs ZeRO-3 has enough to do to hide the launches
    if training.activation_checkpointing:
        checkpoint_layers(model, training.activation_checkpointing)


def resume_engine(
    model: PackedModel, training: TrainingConfig, workers: int, *, checkpoint: Path | None, workers_before: int
) -> deepspeed.DeepSpeedEngine:
    """The engine as the checkpoint left it, whatever the number of workers then; without a checkpoint, a new one."""
    if checkpoint is None or workers == workers_before or training.zero_stage == 0:
        engine = make_engine(model, training, workers)  # ZeRO 0 keeps whole states, which anybody can load
        if checkpoint is not None:
            load_engine(engine, checkpoint)
        return engine
    engine = make_engine(model, training, workers, universal=True)
    with universal_checkpoint(checkpoint) as folder:
        load_engine(engine, folder)
    return engine


def deepspeed_config(training: TrainingConfig, workers: int) -> dict[str, Any]:
    """The engine's settings; the optimizer is torch's own and is passed beside it, the learning rate is set step by step."""
    zero: dict[str, Any] = {"stage": training.zero_stage}
    if training.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu"}
    if training.offload == "all":
        zero["offload_param"] = {"device": "cpu"}
    half, states = training.precision == "bf16", training.optimizer_states == "bf16"
    return _merged(
        {
            "train_micro_batch_size_per_gpu": training.micro_batch_size,
            "gradient_accumulation_steps": training.batch_size // (workers * training.micro_batch_size),
            # Infinity clips nothing, but the norm is still taken: it is logged, and tells of a step that went wrong.
            "gradient_clipping": training.max_grad_norm or float("inf"),
            "bf16": {"enabled": half, "bf16_master_weights_and_grads": states, "bf16_optimizer_states": states},
            "zero_optimization": zero,
            "zero_force_ds_cpu_optimizer": False,
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 10**9,
        },
        training.deepspeed,
    )


def learning_rate_at(step: int, total_steps: int, training: TrainingConfig) -> float:
    """The factor on the peak learning rate in optimizer step `step` (from 0)."""
    warmup = training.warmup_fraction * total_steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if training.schedule == "constant":
        return 1.0
    left = 1 - (step - warmup) / max(1.0, total_steps - warmup)
    return left if training.schedule == "linear" else float(0.5 * (1 - torch.cos(torch.tensor(torch.pi * left))))


def optimizer_step(engine: deepspeed.DeepSpeedEngine, learning_rate: float) -> float:
    """`engine.step()` at that rate; the gradient's norm before clipping, over all weights and workers, or 0 inside a step."""
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate
    at_boundary = engine.is_gradient_accumulation_boundary()
    own = 0.0
    if at_boundary and not hasattr(engine.optimizer, "_global_grad_norm"):  # ZeRO 0: DeepSpeed clips and forgets
        gradients = [p.grad for p in engine.module.parameters() if p.grad is not None]
        own = float(torch.nn.utils.get_total_norm(gradients))
    engine.step()
    return float(engine.get_global_grad_norm() or own) if at_boundary else 0.0


def _merged(settings: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    return settings | {
        key: _merged(settings[key], value) if isinstance(value, dict) and isinstance(settings.get(key), dict) else value
        for key, value in more.items()
    }
