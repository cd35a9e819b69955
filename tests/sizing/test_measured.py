"""The plan's peaks against measured ones: a CPU's (benchmarks/plan.py) and one H200's (benchmarks/gpu.py)."""

import json
import random
from dataclasses import replace

import pytest
import torch
from gpu_plan import STEPS
from gpu_plan import planned_step as planned_case
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
from raw2s.sizing.stage import CUDA_BYTES, GIB, PROCESS_BYTES
from raw2s.sizing.states import Layout
from raw2s.sizing.training import MicroBatch, Step, step_peak

GPU = json.loads((ROOT / "benchmarks" / "results" / "gpu.json").read_text())
CPU = json.loads((ROOT / "benchmarks" / "results" / "plan.json").read_text())
H200 = 139.8 * GIB
BAR = 0.15
PLAIN = Layout(stage=None)
"""torch's AdamW with moments in the weights' bf16, as benchmarks/gpu_training.py has it."""


PLANNED = {name: found for name, found in GPU["parts"]["plan"].items() if name not in ("environment", "part_seconds")}
STEP, FIRST = GPU["parts"]["step"], GPU["first_call"]["step"]
ON_PAGE = {
    "H200, 1.1 B, dense": STEP["step, dense edl"],
    "H200, 1.1 B, blocks and compiled layers": STEP["step, blocks + compile edl"],
    "H200, 7B, compiled, 6 x 2,048 tokens": STEP["7B, 6 x 2048, edl"],
    "H200, 7B, the same in 2 micro-batches": STEP["7B, 6 x 2048, edl, 2 micro-batches"],
    "H200, 7B, all layers recomputed (first call)": FIRST["7B, 6 x 2048, edl, all layers recomputed"],
}
"""Rows of docs/planning.md whose measured peak is in gpu.json, and whose planned one is computed here."""


def page_row(name: str) -> list[str]:
    """Planned and measured GiB and how far apart, as docs/planning.md writes them."""
    lines = (ROOT / "docs" / "planning.md").read_text().splitlines()
    return next(line for line in lines if line.startswith(f"| {name} |")).split(" | ")[1:]


def check_against_measured(name: str, planned_gib: float) -> None:
    """Within the bar, and what the page says is planned now."""
    measured = ON_PAGE[name]["peak_gib"]
    assert planned_gib == pytest.approx(measured, rel=BAR)
    assert float(page_row(name)[0]) == pytest.approx(planned_gib, rel=0.002)


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
    check_against_measured("H200, 1.1 B, dense", planned(FULL.step, batch, dense=True) + copy)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_compiled_steps_of_1_1_b_and_7_b():
    batch = packed(random_rows(FULL, random.Random(SEED)), FULL.step.hidden_size, "one_row")
    copy = 2 * model_size(meta_model(FULL.step)).parameters / GIB
    check_against_measured("H200, 1.1 B, blocks and compiled layers", planned(FULL.step, batch, dense=False) + copy)
    third = (2048 - 1536 + 3) // 3
    rows = [random_row(random.Random(SEED), 32_000, 1536, [third, third, 515 - 2 * third]) for _ in range(6)]
    batch = packed(rows, FULL.seven.hidden_size, "one_row")
    for name, how in (
        ("H200, 7B, compiled, 6 x 2,048 tokens", {}),
        ("H200, 7B, the same in 2 micro-batches", {"micro_batches": 2}),
        ("H200, 7B, all layers recomputed (first call)", {"checkpointed": 1.0}),
    ):
        check_against_measured(name, planned(FULL.seven, batch, dense=False, **how))


@pytest.mark.parametrize("name", [name for name, case in STEPS.items() if not case.how])
def test_dense_steps_of_other_architectures_are_planned_as_when_they_were_measured(name):
    case = STEPS[name]
    draw = random.Random(SEED)
    rows = [random_row(draw, case.config.vocab_size, case.prompt, [case.target] * 3) for _ in range(case.prompts)]
    planned_gib = planned_case(case, packed(rows, case.config.hidden_size, "rows"), H200) / GIB
    assert planned_gib == pytest.approx(PLANNED[name]["planned_gib"], rel=0.002)


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
    for name, found in PLANNED.items():
        planned_gib, measured = found["planned_gib"], found["measured_gib"]
        assert page_row(f"H200, {name}") == [
            f"{planned_gib:.2f}",
            f"{measured:.2f}",
            f"{found['apart']:+.1%} |".replace("%", " %"),
        ]
        assert abs(planned_gib / measured - 1) <= BAR
    for name, found in ON_PAGE.items():
        planned_gib, measured, apart = page_row(name)
        assert measured == f"{found['peak_gib']:.2f}"
        assert float(apart.split()[0]) == pytest.approx(100 * (float(planned_gib) / found["peak_gib"] - 1), abs=0.1)
    kept = [found["reserved_gib"] - found["measured_gib"] for found in PLANNED.values()]
    assert f"allocator held {min(kept):.1f} to {max(kept):.1f} GiB more" in page
    for found in CPU.values():
        planned, measured = (f"{found[key]:.2f}" for key in ("planned_gib", "measured_gib"))
        assert f"| {planned} | {measured} |" in page


def test_what_is_held_beside_torch_is_the_most_that_was_measured():
    outside = [found["outside_torch_gib"] for found in PLANNED.values()]
    assert pytest.approx(max(outside), abs=0.005) == CUDA_BYTES / GIB
    page = (ROOT / "docs" / "planning.md").read_text()
    assert f"({min(outside):.2f} to {max(outside):.2f} on" in page
    assert max(found["process_gib"] for found in CPU.values()) <= PROCESS_BYTES / GIB
