"""ZeRO stages, offload, and numbers of workers: the same curve, of fp32 and of bf16; and a resumed run is the run that was never cut.

Starting processes costs more than these runs: all of them share three starts.
"""

import json
from pathlib import Path

import pytest
import torch
from plain_workers import Case, case, judge_of, judged_by, train_without_ray
from transformers import AutoModelForCausalLM, AutoTokenizer

from raw2s.decoding.bridge import words
from raw2s.labels.rows import RowKind, TextTarget, TrainingRow
from raw2s.methods import LossSection
from raw2s.methods.cross_entropy import CrossEntropySection
from raw2s.methods.evidential import EvidentialSection
from raw2s.methods.learned import LearnedWeights
from raw2s.methods.preference import PreferenceSection
from raw2s.models.load import load_model, load_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

# 11 rows in steps of 4: the last step is short, and its second worker has less than the first.
TIMES = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]
STEPS = 6
STAGES = (0, 1, 2, 3)
HALVED = (1, 3)
"""Stages whose bf16 runs are cut and go on; 2 is 1's optimizer."""
OPTIMIZER_STATES = {"bf16": "fp32", "half": "bf16"}
"""Of the runs in bf16, by the name of their cases."""
LOSSES: dict[str, tuple[RowKind, LossSection, LearnedWeights | None]] = {
    "ce": ("targets", CrossEntropySection(gamma_max=0.2), None),
    "edl": ("targets", EvidentialSection(kl_weight=1e-5, gamma_max=0.2), None),
    "cdpo": ("pair", PreferenceSection(beta=0.5, label_smoothing=0.1), None),
    "raven": (
        "targets",
        CrossEntropySection(),
        LearnedWeights(teachers=("a", "b", "nobody"), start=(0.5, 0.3, 0.2), rate=0.5, agreement_fraction=0.2),
    ),
}


def training_row(i: int, time: str, kind: RowKind) -> TrainingRow:
    prompt, text = f"wake me up at {time} am\n", f'{{ "time" : "{time} am" }}'
    if kind == "pair":
        return TrainingRow(id=i, prompt=prompt, chosen=text, rejected="{}", margin=1.0)
    targets = [
        TextTarget(
            text=answer, weights=[weight], word_logprobs=[[-0.1 * w for w in range(len(words(answer)) + 1)]], teacher=teacher
        )
        for teacher, (answer, weight) in enumerate(((text, 0.5), (text if i % 3 == 0 else "{}", 0.2)))
    ]
    return TrainingRow(id=i, prompt=prompt, targets=targets)


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> dict[RowKind, Path]:
    folder = tmp_path_factory.mktemp("rows")
    files: dict[RowKind, Path] = {kind: folder / f"{kind}.jsonl" for kind in ("targets", "pair")}
    for kind, file in files.items():
        file.write_text("".join(json.dumps(training_row(i, time, kind)) + "\n" for i, time in enumerate(TIMES)))
    return files


@pytest.fixture(scope="module")
def with_dropout(tmp_path_factory) -> str:
    """A built-in model that draws dropout in every step."""
    folder = tmp_path_factory.mktemp("dropout")
    model = load_model("tiny-gpt2", "text")
    model.config.resid_pdrop = model.config.attn_pdrop = model.config.embd_pdrop = 0.1
    model.save_pretrained(folder)
    load_tokenizer("tiny-gpt2").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def cases(rows, with_dropout, tmp_path_factory) -> dict[str, Case]:
    """By name, `<loss> zero<stage>` and the like."""
    folder = tmp_path_factory.mktemp("cases")

    def of(name: str, loss: str, **training: object) -> Case:
        kind, section, learned = LOSSES[loss]
        slow = {"learning_rate": 1e-4} if kind == "pair" else {}  # it starts at log 2, with nowhere to fall at once
        return case(
            folder / name, rows[kind], kind=kind, loss=section, learned=learned, validation=rows["targets"], **slow | training
        )

    def resumable(name: str, stage: int, **training: object) -> Case:
        return of(f"{name} zero{stage}", "edl", zero_stage=stage, checkpoint_every=2, keep="best", **training)

    two = {
        f"{loss} zero{stage}": of(f"{loss} zero{stage}", loss, zero_stage=stage, workers=2) for loss in LOSSES for stage in STAGES
    }
    two["optimizer offloaded"] = of("optimizer offloaded", "ce", zero_stage=1, workers=2, offload="optimizer")
    two["sequences"] = of("sequences", "edl", zero_stage=2, workers=2, normalize="sequences")
    two["all offloaded"] = of("all offloaded", "edl", zero_stage=3, workers=2, offload="all")
    two["small buckets"] = of(
        "small buckets", "ce", zero_stage=2, workers=2, deepspeed={"zero_optimization": {"reduce_bucket_size": 999}}
    )
    for stage in STAGES:
        whole = two[f"whole zero{stage}"] = resumable("whole", stage, workers=2, model=with_dropout)
        two[f"again zero{stage}"] = resumable("again", stage, workers=2, model=with_dropout, checkpoint=whole.step(2))
        two[f"steady zero{stage}"] = resumable("steady", stage, workers=2)
    for name, states in OPTIMIZER_STATES.items():
        for stage in HALVED:
            half = {"precision": "bf16", "optimizer_states": states, "workers": 2}
            whole = two[f"{name} whole zero{stage}"] = resumable(f"{name} whole", stage, **half)
            two[f"{name} again zero{stage}"] = resumable(f"{name} again", stage, checkpoint=whole.step(2), **half)
    two["bf16 whole zero2"] = of("bf16 whole zero2", "edl", zero_stage=2, precision="bf16", workers=2)
    learned = two["raven whole"] = of("raven whole", "raven", zero_stage=2, workers=2, checkpoint_every=3)
    two["raven again"] = of("raven again", "raven", zero_stage=2, workers=2, checkpoint=learned.step(3))
    judge = judge_of([f"wake me up at {time} am\n" for time in TIMES], max_new_tokens=12)
    two["judged"] = judged_by(judge, of("judged", "ce", zero_stage=2, workers=2, micro_batch_size=1))
    train_without_ray(list(two.values()), workers=2)

    one = {f"{loss} alone": of(f"{loss} alone", loss, zero_stage=0) for loss in LOSSES}
    one["sequences alone"] = of("sequences alone", "edl", zero_stage=0, normalize="sequences", micro_batch_size=4)
    one["recomputed"] = of("recomputed", "edl", zero_stage=0, activation_checkpointing=True)
    for stage in STAGES:
        one[f"fewer zero{stage}"] = resumable("fewer", stage, workers=1, checkpoint=two[f"steady zero{stage}"].step(2))
    for name, states in OPTIMIZER_STATES.items():
        for stage in HALVED:
            half = {"precision": "bf16", "optimizer_states": states, "checkpoint": two[f"{name} whole zero{stage}"].step(2)}
            one[f"{name} fewer zero{stage}"] = resumable(f"{name} fewer", stage, **half)
    train_without_ray(list(one.values()), workers=1)

    more = {
        f"more zero{stage}": resumable("more", stage, workers=2, checkpoint=one[f"fewer zero{stage}"].step(4)) for stage in STAGES
    }
    train_without_ray(list(more.values()), workers=2)
    return two | one | more


@pytest.mark.parametrize("loss", LOSSES)
def test_stages_on_two_workers_are_one_worker(cases, loss):
    alone = cases[f"{loss} alone"]
    assert len(alone.curve()) == STEPS and alone.curve()[-1] < alone.curve()[0], "it learns"
    for stage in STAGES:
        made = cases[f"{loss} zero{stage}"]
        assert made.curve() == pytest.approx(alone.curve(), abs=1e-5), f"ZeRO {stage}"
        assert made.curve("gradient_norm") == pytest.approx(alone.curve("gradient_norm"), rel=1e-4), f"ZeRO {stage}"
        for name, weight in made.weights().items():
            torch.testing.assert_close(weight, alone.weights()[name], atol=1e-4, rtol=0, msg=f"ZeRO {stage}, {name}")


def test_sequences_count_alike_however_they_fall_on_workers_and_micro_batches(cases):
    alone = cases["sequences alone"].curve()
    assert cases["sequences"].curve() == pytest.approx(alone, abs=1e-5)
    assert abs(alone[0] - cases["edl alone"].curve()[0]) > 0.01, "they are not of one length"


def test_learned_weights_rest_and_move_alike_at_every_stage(cases):
    """Teacher a writes what the student finds likelier in the end; nobody labels nothing, and keeps a share."""
    alone = cases["raven alone"]
    weights = {name: alone.curve(f"teacher_weight/{name}") for name in ("a", "b", "nobody")}
    assert [sum(step) for step in zip(*weights.values(), strict=True)] == pytest.approx([1.0] * STEPS)
    assert weights["a"][:2] == pytest.approx([0.5, 0.5]) and weights["a"][2] != pytest.approx(0.5, abs=1e-3)
    for stage in STAGES:
        for name, curve in weights.items():
            assert cases[f"raven zero{stage}"].curve(f"teacher_weight/{name}") == pytest.approx(curve, abs=1e-4), f"ZeRO {stage}"


def test_learned_weights_are_resumed_to_the_bit(cases):
    whole, again = cases["raven whole"], cases["raven again"]
    for figure in ("loss", "teacher_loss/a", "teacher_weight/b"):
        assert again.curve(figure) == whole.curve(figure) and len(whole.curve(figure)) == STEPS
    assert all(torch.equal(weight, whole.weights()[name]) for name, weight in again.weights().items())


OTHERWISE = {"optimizer offloaded": "ce", "all offloaded": "edl", "small buckets": "ce", "recomputed": "edl"}


@pytest.mark.parametrize(("name", "loss"), OTHERWISE.items())
def test_where_things_lie_changes_nothing(cases, name, loss):
    assert cases[name].curve() == pytest.approx(cases[f"{loss} alone"].curve(), abs=1e-5)


def test_the_export_of_a_partitioned_model_loads_anywhere(cases):
    folder = cases["ce zero3"].last / "model"
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert sum(p.numel() for p in model.parameters()) == 344_448
    assert model.config.raw2s["task"] == "slurp_slots" and model.config.raw2s["loss"]["gamma_max"] == 0.2
    assert "slurp_slots" in (folder / "README.md").read_text()
    assert AutoTokenizer.from_pretrained(folder).eos_token == "<|endoftext|>"


def test_workers_that_share_the_decoding_get_the_score_of_all_answers(cases):
    folder, score = cases["judged"].best()
    assert cases["judged"].score_of(folder / "model") == score


@pytest.mark.parametrize("stage", STAGES)
def test_a_resumed_run_is_to_the_bit_the_run_that_was_never_cut(cases, stage):
    whole, again = cases[f"whole zero{stage}"], cases[f"again zero{stage}"]
    for figure in ("loss", "gradient_norm", "validation_loss"):
        assert again.curve(figure) == whole.curve(figure)
    expected = whole.weights()
    assert all(torch.equal(weight, expected[name]) for name, weight in again.weights().items())


@pytest.mark.parametrize("stage", STAGES)
def test_another_number_of_workers_continues_the_curve(cases, stage):
    steady = cases[f"steady zero{stage}"].curve()
    for name in ("fewer", "more"):
        assert cases[f"{name} zero{stage}"].curve() == pytest.approx(steady, abs=1e-4), name


@pytest.mark.parametrize("stage", (1, 2, 3))
def test_bf16_draws_fp32s_curve_at_every_stage(cases, stage):
    """Within the error of bf16; a first step of Adam that is too small by a quarter is 1.3 % off."""
    assert cases[f"bf16 whole zero{stage}"].curve() == pytest.approx(cases["edl alone"].curve(), rel=3e-3)


@pytest.mark.parametrize("stage", HALVED)
@pytest.mark.parametrize(("name", "dtype"), {"bf16": torch.float32, "half": torch.bfloat16}.items())
def test_bf16_goes_on_from_a_checkpoint_with_states_of_its_type(cases, name, dtype, stage):
    whole, again, fewer = (cases[f"{name} {cut} zero{stage}"] for cut in ("whole", "again", "fewer"))
    assert whole.curve()[-1] < whole.curve()[0]
    assert whole.curve() == pytest.approx(cases["edl alone"].curve(), rel=0.02)
    for figure in ("loss", "gradient_norm", "validation_loss"):
        assert again.curve(figure) == whole.curve(figure)
    assert fewer.curve() == pytest.approx(whole.curve(), rel=1e-3)
    shards = [torch.load(file, weights_only=False) for file in (whole.step(2) / "engine").glob("*optim_states.pt")]
    assert {kept for shard in shards for kept in moments(shard)} == {dtype}


def moments(tree: object) -> list[torch.dtype]:
    """The types of Adam's first moments in a checkpoint of any stage."""
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    found = [own for _, child in children for own in moments(child)]
    return found + ([tree["exp_avg"].dtype] if isinstance(tree, dict) and isinstance(tree.get("exp_avg"), torch.Tensor) else [])
