"""The plan's peaks against measured ones: a CPU's (benchmarks/plan.py) and one H200's (benchmarks/gpu.py)."""

import json
import random
from dataclasses import replace

import pytest
import torch
from gpu_report import FULL, SEED
from gpu_training import random_row, random_rows
from plan import SCORED, SCORER, TRAININGS
from tiny_runs import ROOT

from raw2s.config import TrainingConfig
from raw2s.decoding.packing import pack_rows
from raw2s.decoding.scoring import BATCH_TOKENS
from raw2s.pipeline.training_sizes import planned_step, sizes_of
from raw2s.sizing.activations import layer_memory
from raw2s.sizing.decoding import scoring_peak
from raw2s.sizing.model import meta_model, model_size
from raw2s.sizing.stage import GIB
from raw2s.sizing.states import Layout
from raw2s.sizing.training import MicroBatch, Step, step_peak

GPU = json.loads((ROOT / "benchmarks" / "results" / "gpu.json").read_text())
CPU = json.loads((ROOT / "benchmarks" / "results" / "plan.json").read_text())
H200 = 139.8 * GIB
BAR = 0.15
PLAIN = Layout(stage=None)
"""torch's AdamW with moments in the weights' bf16, as benchmarks/gpu_training.py has it."""


def packed(rows, hidden_size: int, layout) -> MicroBatch:
    packed_rows, _ = pack_rows([row.tree for row in rows], padding=0, hidden_size=hidden_size, layout=layout)
    count, width = packed_rows.input_ids_RT.shape
    return MicroBatch(rows=count, width=width, targets=sum(len(s.ids) for row in rows for s in row.sequences))


def planned(config, batch: MicroBatch, *, dense: bool, **how) -> float:
    """GiB of a step in bf16 as benchmarks/gpu_training.py makes it; layers are compiled where attention is over blocks."""
    model = meta_model(config, dtype=torch.bfloat16)
    layer = layer_memory(model, compiled=not dense, repeated_heads=dense)
    step = Step(layout=PLAIN, layer=layer, micro_batch=batch, dense_mask=dense, card_bytes=H200)
    return step_peak(model_size(model), replace(step, **how)).total / GIB


def test_a_dense_step_of_1_1_b():
    """The benchmark holds a second copy of the weights, with which it begins every variant."""
    batch = packed(random_rows(FULL, random.Random(SEED)), FULL.step.hidden_size, "rows")
    copy = 2 * model_size(meta_model(FULL.step)).parameters / GIB
    assert planned(FULL.step, batch, dense=True) + copy == pytest.approx(
        GPU["parts"]["step"]["step, dense edl"]["peak_gib"], rel=BAR
    )


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_compiled_steps_of_1_1_b_and_7_b():
    step, first = GPU["parts"]["step"], GPU["first_call"]["step"]
    batch = packed(random_rows(FULL, random.Random(SEED)), FULL.step.hidden_size, "one_row")
    copy = 2 * model_size(meta_model(FULL.step)).parameters / GIB
    assert planned(FULL.step, batch, dense=False) + copy == pytest.approx(step["step, blocks + compile edl"]["peak_gib"], rel=BAR)
    third = (2048 - 1536 + 3) // 3
    rows = [random_row(random.Random(SEED), 32_000, 1536, [third, third, 515 - 2 * third]) for _ in range(6)]
    batch = packed(rows, FULL.seven.hidden_size, "one_row")
    for measured, how in (
        (step["7B, 6 x 2048, edl"], {}),
        (step["7B, 6 x 2048, edl, 2 micro-batches"], {"micro_batches": 2}),
        (first["7B, 6 x 2048, edl, all layers recomputed"], {"checkpointed": 1.0}),
    ):
        assert planned(FULL.seven, batch, dense=False, **how) == pytest.approx(measured["peak_gib"], rel=BAR)


def test_a_7_b_student_under_deepspeed():
    """One H200 held 138 GiB at d5f8c63 (docs/gpu.md): ZeRO 1 in bf16, two micro-batches of four prompts of 460 tokens with three
    targets, all layers recomputed. The optimizer's step is the peak, so that the layers have no say."""
    training = TrainingConfig(
        batch_size=8, micro_batch_size=4, precision="bf16", gpus_per_worker=1, zero_stage=1, activation_checkpointing=1.0, compile="none"
    )  # fmt: skip
    model = meta_model(FULL.seven, dtype=torch.bfloat16)
    batch = MicroBatch(rows=2, width=2 * (460 + 3 * 40), targets=4 * 3 * 40)
    peak = step_peak(model_size(model), planned_step(model, training, batch, H200))
    assert peak.total / GIB == pytest.approx(138, rel=BAR)
    assert peak.activations == 0 < peak.buffers


@pytest.mark.parametrize("name", list(TRAININGS))
def test_training_on_a_cpu(name):
    (config, training), found = TRAININGS[name], CPU[name]
    model, batch = meta_model(config), MicroBatch(rows=found["rows"], width=found["width"], targets=found["targets"])
    peak = step_peak(sizes_of(model, training), planned_step(model, training, batch, 0.0)).total / GIB
    assert peak == pytest.approx(found["measured_gib"], rel=BAR)
    assert peak == pytest.approx(found["planned_gib"], rel=0.01), "the file and docs/planning.md say what is planned now"


def test_scoring_on_a_cpu_where_freed_memory_is_returned():
    _, tokens, texts, length = SCORED
    nodes = tokens + texts * (length - 1)
    at_once = BATCH_TOKENS["cpu"] // nodes
    model, batch = meta_model(SCORER), MicroBatch(rows=at_once, width=nodes, targets=at_once * texts * length)
    peak = scoring_peak(model_size(model), layer_memory(model), batch, weight_bytes=4, card_bytes=None)
    assert peak.total / GIB == pytest.approx(CPU["score, freed memory returned"]["measured_gib"], rel=BAR)


def test_the_page_says_what_was_measured():
    page = (ROOT / "docs" / "planning.md").read_text()
    for found in CPU.values():
        planned, measured = (f"{found[key]:.2f}" for key in ("planned_gib", "measured_gib"))
        assert f"| {planned} | {measured} |" in page
