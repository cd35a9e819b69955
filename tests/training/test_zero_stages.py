"""ZeRO stages 0-3, offload, and numbers of workers: the same fp32 curve; and a run taken up again is the run that was never cut.

Starting processes costs more than these runs: all of them share three starts.
"""

import json
from pathlib import Path

import pytest
import torch
from plain_workers import Case, case, train_without_ray
from transformers import AutoModelForCausalLM, AutoTokenizer

from raw2s.decoding.bridge import words
from raw2s.models.load import load_model, load_tokenizer
from raw2s.training.job import LossSettings
from raw2s.training.rows import TextTarget, TrainingRow

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

# 11 rows in steps of 4: the last step is short, and its second worker has less than the first.
TIMES = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]
STEPS = 6
STAGES = (0, 1, 2, 3)
LOSSES = {
    "ce": ("supervised", LossSettings(gamma_max=0.2)),
    "edl": ("supervised", LossSettings(edl=True, kl_weight=1e-5, gamma_max=0.2)),
    "cdpo": ("preference", LossSettings(beta=0.5, label_smoothing=0.1)),
}


def training_row(i: int, time: str, form: str) -> TrainingRow:
    prompt, text = f"wake me up at {time} am\n", f'{{ "time" : "{time} am" }}'
    if form == "preference":
        return TrainingRow(id=i, prompt=prompt, chosen=text, rejected="{}")
    targets = [
        TextTarget(text=answer, weights=[weight], word_logprobs=[[-0.1 * w for w in range(len(words(answer)) + 1)]])
        for answer, weight in ((text, 0.5), ("{}", 0.2))
    ]
    return TrainingRow(id=i, prompt=prompt, targets=targets)


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("rows")
    files = {form: folder / f"{form}.jsonl" for form in ("supervised", "preference")}
    for form, file in files.items():
        file.write_text("".join(json.dumps(training_row(i, time, form)) + "\n" for i, time in enumerate(TIMES)))
    return files


@pytest.fixture(scope="module")
def with_dropout(tmp_path_factory) -> str:
    """A built-in model that draws dropout in every step."""
    folder = tmp_path_factory.mktemp("dropout")
    model = load_model("tiny-gpt2", "generation")
    model.config.resid_pdrop = model.config.attn_pdrop = model.config.embd_pdrop = 0.1
    model.save_pretrained(folder)
    load_tokenizer("tiny-gpt2").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def cases(rows, with_dropout, tmp_path_factory) -> dict[str, Case]:
    """By name, `<loss> zero<stage>` and the like."""
    folder = tmp_path_factory.mktemp("cases")

    def of(name: str, loss: str, **training: object) -> Case:
        form, settings = LOSSES[loss]
        slow = {"learning_rate": 1e-4} if form == "preference" else {}  # it starts at log 2, with nowhere to fall at once
        return case(folder / name, rows[form], form=form, loss=settings, validation=rows["supervised"], **slow | training)

    def resumable(name: str, stage: int, **training: object) -> Case:
        return of(f"{name} zero{stage}", "edl", zero_stage=stage, checkpoint_every=2, keep="best", **training)

    two = {
        f"{loss} zero{stage}": of(f"{loss} zero{stage}", loss, zero_stage=stage, workers=2) for loss in LOSSES for stage in STAGES
    }
    two["optimizer offloaded"] = of("optimizer offloaded", "ce", zero_stage=1, workers=2, offload="optimizer")
    two["all offloaded"] = of("all offloaded", "edl", zero_stage=3, workers=2, offload="all")
    two["small buckets"] = of(
        "small buckets", "ce", zero_stage=2, workers=2, deepspeed={"zero_optimization": {"reduce_bucket_size": 999}}
    )
    for stage in STAGES:
        whole = two[f"whole zero{stage}"] = resumable("whole", stage, workers=2, model=with_dropout)
        two[f"again zero{stage}"] = resumable("again", stage, workers=2, model=with_dropout, checkpoint=whole.step(2))
        two[f"steady zero{stage}"] = resumable("steady", stage, workers=2)
    train_without_ray(list(two.values()), workers=2)

    one = {f"{loss} alone": of(f"{loss} alone", loss, zero_stage=0) for loss in LOSSES}
    one["recomputed"] = of("recomputed", "edl", zero_stage=0, activation_checkpointing=True)
    for stage in STAGES:
        one[f"fewer zero{stage}"] = resumable("fewer", stage, workers=1, checkpoint=two[f"steady zero{stage}"].step(2))
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


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_taken_up_again_is_to_the_bit_the_run_that_was_never_cut(cases, stage):
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
