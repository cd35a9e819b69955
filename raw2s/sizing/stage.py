"""A stage's size as plain figures, and the device that it has to fit."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from raw2s.errors import ConfigError
from raw2s.sizing.cards import CARDS, Card

GIB = 2**30
CUDA_BYTES = 0.93 * GIB
"""What the driver, cuBLAS and compiled kernels hold of a card beside torch's own allocations: the most of one H200's processes, which
began at 0.75 (benchmarks/results/gpu.json, `outside_torch_gib`)."""
PROCESS_BYTES = 0.7 * GIB
"""A worker's process on a CPU: 0.56 GiB with torch, transformers and DeepSpeed (benchmarks/results/plan.json, the largest
`process_gib`), and what importing Ray adds, 0.13."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """What stages run on, as the user says."""

    name: str
    card: Card
    utilization: float
    """MFU: the share of a card's peak operations that is reached; in a beam's steps that of its memory's bandwidth."""
    memory: float | None = None
    """Bytes of the device, in place of the card's; for stages on a CPU too, which without it fit anything."""

    @property
    def card_bytes(self) -> float:
        """Of a GPU."""
        return self.memory or self.card.memory_gib * GIB

    def room(self, gpus: float) -> float | None:
        """Bytes that a process may take that reserves so many GPUs; None for no bound."""
        if not gpus:
            return self.memory
        return self.card_bytes * min(1.0, gpus)


def device_of(gpu: str, memory: str | None, utilization: float) -> Device:
    """From a card's name, a size such as 80GiB or 24 GB, and a share. Raises ConfigError for what is none."""
    if gpu not in CARDS:
        raise ConfigError(
            f"--gpu {gpu}: no card of that name is known; give one of {', '.join(CARDS)}, and --memory for another size"
        )
    if not 0 < utilization <= 1:
        raise ConfigError(f"--mfu {utilization:g} is no share; give one above 0 and up to 1, such as 0.4")
    found = None if memory is None else re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]i?B)", memory)
    if memory is not None and found is None:
        raise ConfigError(f"--memory {memory}: not a size; write a number and a unit, such as 80GiB")
    of_device = None
    if found is not None:
        base = 1024 if "i" in found[2] else 1000
        of_device = float(found[1]) * base ** ("KMGT".index(found[2][0]) + 1)
    return Device(name=gpu, card=CARDS[gpu], utilization=utilization, memory=of_device)


@dataclass(frozen=True, kw_only=True)
class StageSize:
    """One stage that runs a model; bytes of one worker or actor, work of all."""

    stage: str
    model: str
    parameters: int
    gpus: float
    """That a worker or actor reserves; 0: it runs on a CPU."""
    memory: Mapping[str, float]
    """The peak's parts in bytes: weights, gradients, optimizer, activations, head, cache, buffers."""
    host: float = 0.0
    """In host memory beside a GPU's: what is offloaded."""
    tokens: float
    flops: float
    traffic: float = 0.0
    """Bytes that a beam search's steps read."""
    disk: float = 0.0
    """Kept when the stage is done."""
    disk_while: float = 0.0
    """The most while it runs: two checkpoints, of which one is being written."""
    advice: Mapping[str, object] | None = field(default_factory=dict)
    """Settings to change for it to fit, by key; none where it fits; None where nothing that a config says would help."""

    @property
    def framework(self) -> float:
        return CUDA_BYTES if self.gpus else PROCESS_BYTES

    @property
    def peak(self) -> float:
        return sum(self.memory.values()) + self.framework

    def fits(self, device: Device) -> bool:
        room = device.room(self.gpus)
        return room is None or self.peak <= room

    def gpu_hours(self, device: Device) -> float:
        """By operations or by memory traffic, whichever takes longer; 0 on a CPU."""
        seconds = max(self.flops / device.card.flops, self.traffic / device.card.bandwidth) / device.utilization
        return seconds / 3600 if self.gpus else 0.0
