"""How fast a run is: tokens a second, padding, memory and, where the device's peak is known, model FLOPs utilization."""

import resource
import time
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from raw2s.sizing.cards import CARDS
from raw2s.training.objectives import PackedModel

WORK = ("tokens", "cells", "targets")
"""Tokens forwarded; the same with padding; positions at which the output head ran."""


class Meter:
    """Counts a run's work, over all ranks. Six operations a weight and token, the head's at the targets only (Kaplan et al. 2020)."""

    def __init__(self, model: PackedModel, device: torch.device, workers: int) -> None:
        body: nn.Module = model.model.get_decoder()
        looked_up = {p for module in body.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
        self.flops = {
            "tokens": 6.0 * _size(p for p in body.parameters() if p not in looked_up),
            "targets": 6.0 * _size(model.head.parameters()),
        }
        self.device, self.workers = device, workers
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        self.peak = next((card.flops for word, card in CARDS.items() if word in name), None)
        self.start = self.last = time.perf_counter()
        self.total = dict.fromkeys(WORK, 0.0)
        self.recent = dict.fromkeys(WORK, 0.0)

    def add(self, work: Mapping[str, float]) -> None:
        for key in WORK:
            self.total[key] += work[key]
            self.recent[key] += work[key]

    def read(self) -> dict[str, float]:
        """Since it was read last: tokens a second, the share of padding; memory at its highest so far in GiB; MFU if known."""
        now = time.perf_counter()
        seconds, self.last = now - self.last, now
        done, self.recent = self.recent, dict.fromkeys(WORK, 0.0)
        found = {
            "tokens_per_second": done["tokens"] / seconds,
            "padding": 1 - done["tokens"] / done["cells"] if done["cells"] else 0.0,
            "memory_gib": self._memory() / 2**30,
        }
        if self.peak is not None:
            found["mfu"] = sum(self.flops[key] * done[key] for key in self.flops) / (seconds * self.workers * self.peak)
        return found

    def mean(self) -> float:
        """Tokens a second since the start."""
        return self.total["tokens"] / (time.perf_counter() - self.start)

    def _memory(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _size(parameters: Iterable[nn.Parameter]) -> int:
    """How many numbers they hold, also where ZeRO-3 has taken them apart."""
    return sum(getattr(p, "ds_numel", p.numel()) for p in parameters)
