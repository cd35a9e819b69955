"""What of a config to change where a stage does not fit its device: as few settings as do, the cheapest first."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from raw2s.config import LoraConfig, TrainingConfig

Changes = dict[str, Any]


def nearest_training(training: TrainingConfig, fits: Callable[[TrainingConfig], bool]) -> Changes | None:
    """The first changes of a training section with which it fits: none where it does, None where nothing here helps.

    A smaller micro-batch costs little; computing layers again costs up to a third more work; then come, each with those two, bf16
    weights, the optimizer's state on the host (in fp32, which leaves less on the card than bf16 states do), more workers, and last
    adapters in place of all weights.
    """
    for kept, (share, micro_batch_size) in itertools.product(_keeping(training), _making(training)):
        changes = kept | ({} if share == training.activation_checkpointing else {"activation_checkpointing": share})
        if micro_batch_size != training.micro_batch_size:
            changes |= {"micro_batch_size": micro_batch_size}
        tried = training.model_copy(update=changes)
        if tried.batch_size % (tried.workers * tried.micro_batch_size) == 0 and fits(tried):
            return changes
    return None


def _making(training: TrainingConfig) -> Iterator[tuple[float, int]]:
    """(share of the layers computed again, micro-batch): the least recomputing first, then the largest micro-batch."""
    shares = [training.activation_checkpointing, *(s for s in (0.25, 0.5, 0.75, 1.0) if s > training.activation_checkpointing)]
    sizes = [size for size in range(training.micro_batch_size, 0, -1) if training.micro_batch_size % size == 0]
    yield from itertools.product(shares, sizes)


def _keeping(training: TrainingConfig) -> Iterator[Changes]:
    """Ways to keep weights, gradients and optimizer state, the config's own first."""
    half: Changes = {"precision": "bf16"} if training.precision == "fp32" and training.gpus_per_worker else {}
    if half and training.zero_stage == 0:
        half["zero_stage"] = 1  # bf16 needs it
    yield {}
    if half:
        yield half
    if training.offload == "none":
        exact: Changes = {} if training.optimizer_states == "fp32" else {"optimizer_states": "fp32"}  # the host takes no others
        yield half | exact | {"offload": "optimizer", "zero_stage": max(1, training.zero_stage)}
    for stage, workers in itertools.product((2, 3), (2, 4, 8)):
        if workers > training.workers and training.batch_size % workers == 0:
            yield half | {"zero_stage": max(stage, training.zero_stage), "workers": workers}
    if training.lora is None:
        yield half | {"lora": LoraConfig()}


def nearest_batch(batch_size: int, fits: Callable[[int], bool]) -> int | None:
    """The largest of `batch_size` and its halves that fits; None where one prompt does not."""
    while batch_size > 1 and not fits(batch_size):
        batch_size //= 2
    return batch_size if fits(batch_size) else None
