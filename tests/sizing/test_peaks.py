"""Peaks of a step and of decoding: which moment is the highest, and how the parts grow."""

from dataclasses import replace

import pytest

from raw2s.errors import ConfigError
from raw2s.sizing.activations import LayerMemory
from raw2s.sizing.decoding import BeamBatch, beams_peak
from raw2s.sizing.model import ModelSize
from raw2s.sizing.stage import GIB, device_of
from raw2s.sizing.states import Layout
from raw2s.sizing.training import MicroBatch, Step, step_peak

SIZE = ModelSize(
    parameters=10_000, trained=10_000, body=8_000, head=1_000, head_rows=100, layers=4, heads=1, hidden=10, key_value=20,
    looked_up_rows=100,
)  # fmt: skip
LAYER = LayerMemory(saved=320, working=100, hidden=20)
STEP = Step(
    layout=Layout(stage=None), layer=LAYER, micro_batch=MicroBatch(rows=1, width=1000, targets=10), card_bytes=80 * GIB, dense_mask=False
)  # fmt: skip


def test_many_tokens_peak_when_the_backward_pass_begins():
    peak = step_peak(SIZE, STEP)
    assert peak.activations == 1000 * (4 * 320 + 3 * 20 + 100)
    assert peak.gradients == 2 * 10 * 100, "the output embedding's alone"
    assert (peak.weights, peak.optimizer, peak.head) == (20_000, 40_000, 0)


def test_several_micro_batches_hold_all_gradients():
    assert step_peak(SIZE, replace(STEP, micro_batches=2)).gradients == 20_000


def test_few_tokens_peak_at_the_optimizers_step():
    few = replace(STEP, layout=Layout(stage=1), micro_batch=MicroBatch(rows=1, width=1, targets=1))
    few = replace(few, layer=LayerMemory(saved=0, working=0, hidden=0), layout=Layout(stage=1, on_gpu=True))
    big = replace(SIZE, parameters=10**9, trained=10**9)
    peak = step_peak(big, few)
    assert peak.total == 22 * 10**9
    assert peak.activations == 0


def test_layers_computed_again_keep_their_input():
    half, whole = (step_peak(SIZE, replace(STEP, checkpointed=share)).activations for share in (0.5, 1.0))
    assert half == 1000 * (2 * 20 + 2 * 320 + 60 + 100)
    assert whole == 1000 * (4 * 20 + 60 + 100 + 320), "and the one in hand is whole again"


def test_a_dense_mask_is_the_square_of_a_row():
    assert step_peak(SIZE, replace(STEP, dense_mask=True)).activations - step_peak(SIZE, STEP).activations == 2 * 1000**2


def test_a_beam_costs_a_column_a_token_where_the_prompt_is_shared():
    batch = BeamBatch(prompts=2, width=128, beams=4, max_new_tokens=9)
    peak = beams_peak(SIZE, LAYER, batch, weight_bytes=2, on_gpu=True)
    assert peak.cache == 2 * 20 * 4 * 2 * (128 + 4 * 8), "the first token of a beam is chosen before any column"
    apart = beams_peak(SIZE, LAYER, replace(batch, shares_prompt=False), weight_bytes=2, on_gpu=True)
    assert apart.cache == 2 * 20 * 4 * 8 * (128 + 9)


@pytest.mark.parametrize(("memory", "expected"), [("80GiB", 80 * 2**30), ("24 GB", 24e9), ("512MiB", 2**29)])
def test_a_size_is_a_number_and_a_unit(memory, expected):
    assert device_of("A100", memory, 0.4).room(1) == expected


def test_a_share_of_a_card_is_a_share_of_its_memory():
    device = device_of("A100", None, 0.4)
    assert device.room(0.5) == 0.5 * device.room(1) == 0.5 * 79.2 * GIB
    assert device.room(0) is None, "a CPU's memory is not known"
    assert device_of("A100", "8GiB", 0.4).room(0) == 8 * GIB


@pytest.mark.parametrize(
    ("gpu", "memory", "share", "named"),
    [("H1", None, 0.4, "--gpu"), ("H100", "much", 0.4, "--memory"), ("H100", None, 0, "--mfu")],
)
def test_a_mistake_is_one_sentence_and_what_to_do(gpu, memory, share, named):
    with pytest.raises(ConfigError, match=rf"^{named} .*; .*give|^{named} .*; write|^{named} .*; give"):
        device_of(gpu, memory, share)
