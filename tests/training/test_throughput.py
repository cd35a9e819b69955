"""The operations behind MFU, against torch's own count of a step's matrix products."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from raw2s.decoding.heads import hidden_at
from raw2s.decoding.packing import pack_rows, token_tree
from raw2s.models.load import load_model
from raw2s.training import throughput
from raw2s.training.objectives import PackedModel


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-opt", "tiny-gpt-neox", "tiny-llama"])
def test_operations_are_those_of_a_training_step(name):
    model = PackedModel(load_model(name, "text").train())
    rows, _ = pack_rows([token_tree(list(range(10, 26)), []) for _ in range(4)], padding=0, hidden_size=model.hidden_size)
    meter = throughput.Meter(model, torch.device("cpu"), workers=1)
    with FlopCounterMode(display=False) as counter:
        hidden_at(model.model, rows, torch.arange(rows.input_ids_RT.numel())).sum().backward()
    attention = counter.get_flop_counts()["Global"]
    of_attention = sum(
        count for operation, count in attention.items() if "attention" in str(operation) or "bmm" in str(operation)
    )
    assert counter.get_total_flops() - of_attention == pytest.approx(meter.flops["tokens"] * rows.input_ids_RT.numel(), rel=0.02)
    assert meter.flops["targets"] == 6 * sum(p.numel() for p in model.head.parameters())


def test_what_is_read_is_since_the_last_reading(monkeypatch):
    clock = iter([0.0, 2.0, 6.0, 10.0])
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(clock))
    meter = throughput.Meter(PackedModel(load_model("tiny-gpt2", "text")), torch.device("cpu"), workers=2)
    meter.peak = 1e9
    meter.add({"tokens": 60.0, "cells": 80.0, "targets": 20.0})
    first = meter.read()
    assert (first["tokens_per_second"], first["padding"]) == (30.0, 0.25)
    assert first["mfu"] == pytest.approx((60 * meter.flops["tokens"] + 20 * meter.flops["targets"]) / (2.0 * 2 * 1e9))
    assert meter.read()["tokens_per_second"] == 0.0
    assert meter.mean() == 6.0
