"""What the loop does besides learning: adapters, a stop that says where, the bf16 run; one process for all."""

import json
import math
import pickle
import shutil
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel
from plain_workers import case, judge_of, judged_by, train_without_ray
from safetensors.torch import load_file
from touch import Touch
from transformers import AutoModelForCausalLM

from raw2s.decoding.scoring import class_logits
from raw2s.errors import StageFailed
from raw2s.labels.rows import TextTarget, TrainingRow
from raw2s.methods.evidential import EvidentialSection
from raw2s.methods.preference import PreferenceSection
from raw2s.models.load import load_model, load_tokenizer
from raw2s.training.fit import CHANGED, STOPPED
from raw2s.training.progress import read_progress

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]
LORA = {"rank": 4, "alpha": 16, "target_modules": ["c_attn"]}


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loop")
    rows = folder / "rows.jsonl"
    with rows.open("w") as file:
        for i, time in enumerate(["one", "two", "three", "four", "five", "six", "seven", "eight"]):
            target = TextTarget(text=f'{{ "time" : "{time} am" }}', weights=[1.0])
            file.write(json.dumps(TrainingRow(id=100 + i, prompt=f"wake me up at {time} am\n", targets=[target])) + "\n")
    made = {
        "lora": case(folder / "lora", rows, lora=LORA, learning_rate=1e-2, checkpoint_every=2, weight_decay=0.1),
        "wild": case(folder / "wild", rows, learning_rate=1e30, checkpoint_every=1, max_grad_norm=0, epochs=4),
        "bf16": case(folder / "bf16", rows, precision="bf16", zero_stage=1, loss=EvidentialSection(kl_weight=1e-5)),
    }
    pairs = folder / "pairs.jsonl"
    with pairs.open("w") as file:
        for i, time in enumerate(["one", "two", "three", "four", "five", "six", "seven"]):
            chosen, prompt = f'{{ "time" : "{time} am" }}', f"wake me up at {time} am\n"
            file.write(json.dumps(TrainingRow(id=i, prompt=prompt, chosen=chosen, rejected="{}", margin=1.0)) + "\n")
    cdpo = {
        "kind": "pair",
        "loss": PreferenceSection(beta=10.0, label_smoothing=0.0),
        "validation": rows,
        "precision": "bf16",
        "learning_rate": 1e-4,
    }
    made["cdpo"] = case(folder / "cdpo", pairs, **cdpo, checkpoint_every=1)
    cut = case(folder / "cdpo-again", pairs, **cdpo, checkpoint=made["cdpo"].step(3))
    again = case(folder / "lora-again", rows, checkpoint=made["lora"].step(2), lora=LORA, learning_rate=1e-2, weight_decay=0.1)
    prompts = [json.loads(line)["prompt"] for line in rows.read_text().splitlines()]
    judge = judge_of(prompts, max_new_tokens=12)
    made["judged"] = judged_by(judge, case(folder / "judged", rows, epochs=4))
    resumed = judged_by(judge, case(folder / "judged-again", rows, epochs=4, checkpoint=made["judged"].step(4)))
    classified = folder / "classified.jsonl"
    with classified.open("w") as file:
        for i, prompt in enumerate(prompts):
            row = TrainingRow(id=i, prompt=prompt, probabilities=[float(i % 3 == k) for k in range(3)])
            file.write(json.dumps(row) + "\n")
    of_classes = case(folder / "classes", classified, kind="probabilities", classes=("a", "b", "c"), epochs=4, learning_rate=1e-2)
    made["classes"] = judged_by(judge_of(prompts, max_new_tokens=None), of_classes)
    train_without_ray([*made.values()], workers=1)
    shutil.copytree(made["lora"].step(2), folder / "replaced")
    for shard in (folder / "replaced" / "engine").glob("*.pt"):
        shard.write_bytes(pickle.dumps(Touch(folder / "touched")))
    replaced = case(folder / "replaced-again", rows, checkpoint=folder / "replaced", lora=LORA)
    train_without_ray([again, cut, resumed, replaced], workers=1)
    return made | {"lora again": again, "cdpo again": cut, "judged again": resumed, "replaced again": replaced}


def test_adapters_alone_are_trained_and_merged_on_export(cases):
    made = cases["lora"]
    assert made.curve()[-1] < made.curve()[0]
    base = load_model("tiny-gpt2", "text").state_dict()
    merged = AutoModelForCausalLM.from_pretrained(made.last / "model").state_dict()
    changed = {name for name, weight in merged.items() if not torch.equal(weight, base[name])}
    assert changed == {name for name in base if name.endswith("c_attn.weight")}
    adapted = PeftModel.from_pretrained(load_model("tiny-gpt2", "text"), made.last / "model" / "adapter")
    for name, weight in adapted.merge_and_unload().state_dict().items():
        torch.testing.assert_close(weight, merged[name])


def test_adapters_are_resumed(cases):
    assert cases["lora again"].curve() == cases["lora"].curve()
    again, whole = (load_file(cases[name].last / "model" / "model.safetensors") for name in ("lora again", "lora"))
    assert all(torch.equal(weight, whole[name]) for name, weight in again.items())


def test_replaced_shards_are_not_unpickled(cases):
    made = cases["replaced again"]
    assert (
        "engine/" in (made.out / CHANGED).read_text() and "has changed since it was written" in (made.out / CHANGED).read_text()
    )
    assert not (made.out.parent / "touched").exists() and not list(made.out.glob("step-*"))


def test_a_loss_that_is_no_number_stops_with_step_and_rows(cases):
    made = cases["wild"]
    message = (made.out / STOPPED).read_text()
    step = read_progress(made.last).step + 1
    assert f"in step {step} (rows 10" in message
    assert "lower the learning rate" in message


def test_bf16_learns(cases):
    curve = cases["bf16"].curve()
    assert curve[-1] < curve[0]
    assert all(weight.dtype in (torch.bfloat16, torch.float32) for weight in cases["bf16"].weights().values())


def test_cdpo_in_bf16_starts_where_policy_and_reference_agree(cases):
    points = read_progress(cases["cdpo"].last).history
    first, last = points[0], points[-1]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert first["margin"] == pytest.approx(0, abs=1e-3)
    assert first["reference_kl"] == pytest.approx(0, abs=1e-3)
    assert last["loss"] < first["loss"] - 0.01 and last["margin"] > 0.01, "it learns"


@pytest.mark.parametrize("name", ["judged", "classes"])
def test_the_epoch_of_the_highest_score_is_kept(cases, name):
    made = cases[name]
    best, _ = made.best()
    scores = made.curve("validation_score")
    assert len(scores) == len(made.curve("validation_score_se")) == 4 and len(set(scores)) > 1, scores
    kept = [folder.parent for folder in made.out.glob("*/model")]
    assert max(kept, key=lambda folder: int(folder.name[5:])) == best, "the latest model that is exported is the best"


def test_the_score_of_an_epoch_is_that_of_its_exported_model(cases):
    made = cases["judged"]
    folder, score = made.best()
    assert made.score_of(folder / "model") == score


def test_so_it_is_of_classes(cases):
    made = cases["classes"]
    (folder, score), judge = made.best(), made.job.judge
    model, tokenizer = load_model(str(folder / "model"), "classes", made.job.classes), load_tokenizer(str(folder / "model"))
    logits = class_logits(model, tokenizer, [example["prompt"] for example in judge.examples])
    chosen = [made.job.classes[k] for k in logits.argmax(axis=-1)]
    assert judge.scoring.score([example["gold"] for example in judge.examples], chosen).score == score


def test_a_resumed_run_judges_as_the_whole_one(cases):
    for figure in ("validation_score", "loss"):
        assert cases["judged again"].curve(figure) == cases["judged"].curve(figure)
    assert read_progress(cases["judged again"].last).best == cases["judged"].best()[1]


def test_references_are_those_before_training_when_a_run_is_resumed(cases):
    whole, again = cases["cdpo"], cases["cdpo again"]
    for figure in ("loss", "margin", "reference_kl"):
        assert again.curve(figure) == whole.curve(figure)
    assert read_progress(again.last).references == read_progress(whole.step(1)).references


def test_out_of_memory_says_what_to_lower(cases, monkeypatch, tmp_path):
    """No device here runs out of memory, so a step that always does stands in."""
    from raw2s.training import loop

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(loop, "_step", full)
    monkeypatch.setattr(
        loop, "resume_engine", lambda *_, **__: SimpleNamespace(device="cpu", gradient_accumulation_steps=lambda: 2)
    )
    monkeypatch.setattr(loop, "Meter", lambda *_: None)
    with pytest.raises(StageFailed, match=r"memory ran out in step 1, on 4 rows of \d+ tokens .*; lower micro_batch_size \(2\)"):
        loop.train(cases["wild"].job, 0, 1, checkpoint=None, report=lambda *_: None, publish=lambda *_: None)
