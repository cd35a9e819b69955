"""What a stage that trains takes, and what of its section to change where it does not fit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from transformers import PreTrainedModel

from raw2s.config import TrainingConfig
from raw2s.decoding.block_masks import drops_attention
from raw2s.decoding.packing import Layout, packable
from raw2s.labels.rows import RowKind, TrainingRow
from raw2s.pipeline.nearest import nearest_training
from raw2s.pipeline.sampled_rows import TrainingTokens, training_tokens
from raw2s.pipeline.sized_models import sized_layer, sized_model, sized_tokenizer
from raw2s.sizing.model import ModelSize, model_size
from raw2s.sizing.stage import Device, StageSize
from raw2s.sizing.states import Layout as StateLayout
from raw2s.sizing.states import states
from raw2s.sizing.training import MicroBatch, Step, step_peak
from raw2s.training.batching import tokenize_row

SCORES_WITH_DROPOUT = 3
"""The softmax, dropout's noise and their product: torch has no fused attention with dropout for a CPU."""
NUMBER_BYTES = {"fp32": 4, "bf16": 2}
"""Of a number in each format."""


@dataclass(frozen=True, kw_only=True)
class Trainee:
    """What is trained on what; `rows` are a sample of `count`."""

    stage: str
    section: str
    """The config's key of its training."""
    model: str
    classes: int
    rows: Sequence[TrainingRow]
    kind: RowKind
    count: int
    chat: bool


def training_size(trainee: Trainee, training: TrainingConfig, device: Device) -> StageSize:
    """Its size as the config has it, with the settings that would make it fit."""
    tokenizer, hidden_size = sized_tokenizer(trainee.model), _model(trainee, training).config.get_text_config().hidden_size
    sampled = [tokenize_row(row, tokenizer, trainee.kind, chat=trainee.chat) for row in trainee.rows]

    @cache
    def tokens_of(micro_batch_size: int, layout: Layout) -> TrainingTokens:
        return training_tokens(
            sampled, count=trainee.count, micro_batch_size=micro_batch_size, hidden_size=hidden_size, layout=layout
        )

    def size(tried: TrainingConfig) -> StageSize:
        model = _model(trainee, tried)
        return _size(trainee, tried, device, model, tokens_of(tried.micro_batch_size, _layout(model, tried)))

    found = size(training)
    changes = nearest_training(training, lambda tried: size(tried).fits(device))
    return replace(
        found, advice=None if changes is None else {f"{trainee.section}.{key}": value for key, value in changes.items()}
    )


def state_layout(training: TrainingConfig) -> StateLayout:
    """DeepSpeed's layout under a training section."""
    return StateLayout(
        stage=training.zero_stage,
        workers=training.workers,
        weight_bytes=NUMBER_BYTES[training.precision],
        master_bytes=NUMBER_BYTES[training.optimizer_states],
        moment_bytes=NUMBER_BYTES[training.optimizer_states],
        offload=training.offload,
        on_gpu=training.gpus_per_worker > 0,
    )


def planned_step(model: PreTrainedModel, training: TrainingConfig, largest: MicroBatch, card_bytes: float) -> Step:
    """A worker's step under a training section; `card_bytes` of the GPU where there is one."""
    dense, on_gpu = not _over_blocks(model, training), training.gpus_per_worker > 0
    return Step(
        layout=state_layout(training),
        layer=sized_layer(model, training.compiles_layers, dense),
        micro_batch=largest,
        micro_batches=training.batch_size // (training.workers * training.micro_batch_size),
        checkpointed=training.activation_checkpointing,
        dense_mask=dense and packable(model),
        kept_scores=SCORES_WITH_DROPOUT if drops_attention(model.config.get_text_config()) and not on_gpu else 0,
        card_bytes=card_bytes if on_gpu else None,
    )


def sizes_of(model: PreTrainedModel, training: TrainingConfig) -> ModelSize:
    """With adapters alone trained where the section says so."""
    lora = training.lora
    if lora is None:
        return model_size(model)
    named = None if lora.target_modules == "all-linear" else lora.target_modules
    return model_size(model, lora_rank=lora.rank, lora_modules=named)


def _size(
    trainee: Trainee, training: TrainingConfig, device: Device, model: PreTrainedModel, tokens: TrainingTokens
) -> StageSize:
    sizes, step = sizes_of(model, training), planned_step(model, training, tokens.largest, device.card_bytes)
    peak = step_peak(sizes, step)
    kept = states(sizes, replace(step.layout, offload="none", workers=1))
    saved = NUMBER_BYTES[training.precision] * sizes.parameters
    forward = 2 * (sizes.body * tokens.tokens + sizes.head * tokens.targets)
    # Six operations a weight and token, four where it gets no gradient, and two more where a layer is computed again.
    passes = (3 if training.lora is None else 2) * forward + training.activation_checkpointing * 2 * sizes.body * tokens.tokens
    references = forward if trainee.kind == "pair" else 0
    names = ("weights", "gradients", "optimizer", "activations", "head", "buffers")
    return StageSize(
        stage=trainee.stage,
        model=trainee.model,
        parameters=sizes.parameters,
        gpus=training.gpus_per_worker,
        memory={name: getattr(peak, name) for name in names},
        host=peak.host,
        tokens=training.epochs * tokens.tokens,
        flops=training.epochs * passes + references,
        disk=saved,
        disk_while=saved + 2 * (kept.weights + kept.optimizer),
    )


def _model(trainee: Trainee, training: TrainingConfig) -> PreTrainedModel:
    dtype = torch.bfloat16 if training.precision == "bf16" else torch.float32
    return sized_model(trainee.model, trainee.classes, dtype, dropout=training.dropout == "checkpoint")


def _over_blocks(model: PreTrainedModel, training: TrainingConfig) -> bool:
    """Whether FlexAttention runs, as `raw2s.training.engine` has it."""
    wanted = training.gpus_per_worker > 0 and (training.compiles_layers or training.zero_stage == 3)
    return wanted and packable(model) and not drops_attention(model.config.get_text_config())


def _layout(model: PreTrainedModel, training: TrainingConfig) -> Layout:
    """As `raw2s.decoding.heads.layout_for` on the workers' device."""
    if not packable(model):
        return "one_text_a_row"
    if _over_blocks(model, training):
        return "one_row"
    return "bucketed_rows" if training.gpus_per_worker else "rows"
