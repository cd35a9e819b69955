"""Loading in parts and saving in shards: host memory, and the same model whatever the ZeRO stage; all in one start of 2 ranks."""

import json
from dataclasses import replace
from pathlib import Path

import loading
import plain_workers
import pytest
import torch
from plain_workers import Case, case
from ranks import run_ranks
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from raw2s.labels.rows import TextTarget, TrainingRow

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
LORA = {"rank": 4, "alpha": 16}
SMALL_SHARDS = 300_000


def work(rank: int, folder: Path, ways: dict[str, loading.Way], whole: list[Case], cut: list[Case]) -> None:
    (folder / f"{rank}.json").write_text(json.dumps(loading.measured(ways, 2)))
    from raw2s.training import shards

    plain_workers._train(rank, whole, 2)
    shards.SHARD_BYTES = SMALL_SHARDS
    plain_workers._train(rank, cut, 2)


def two_rank_cases(folder: Path, large: str) -> tuple[dict[str, Case], dict[str, Case]]:
    """Saved in one file, and in shards."""
    texts, classes = folder / "texts.jsonl", folder / "classes.jsonl"
    prompts = [f"wake me up at {number} am\n" for number in NUMBERS]
    target = [TextTarget(text='{ "time" : "am" }', weights=[1.0])]
    texts.write_text("".join(json.dumps(TrainingRow(id=i, prompt=p, targets=target)) + "\n" for i, p in enumerate(prompts)))
    shares = [0.2, 0.5, 0.3]
    classes.write_text(
        "".join(json.dumps(TrainingRow(id=i, prompt=p, probabilities=shares)) + "\n" for i, p in enumerate(prompts))
    )

    def of(name: str, stage: int, rows: Path = texts, **training: object) -> Case:
        return case(folder / f"{name} {stage}", rows, zero_stage=stage, workers=2, **training)

    def of_classes(name: str, stage: int, **training: object) -> Case:
        made = of(name, stage, classes, **training)
        return Case(replace(made.job, form="classes", classes=("a", "b", "c"), rows="probabilities"), made.out)

    whole = {f"large {stage}": of("large", stage, epochs=1, batch_size=8, model=large) for stage in (0, 3)}
    for stage in (0, 3):
        whole[f"classes {stage}"] = of_classes("classes", stage)
        whole[f"adapted {stage}"] = of_classes("adapted", stage, lora=LORA)
        whole[f"half {stage}"] = of_classes("half", stage or 1, precision="bf16")
    whole["tied 3"] = of("tied", 3)
    whole["renamed 3"] = of("renamed", 3, model="tiny-gpt-neox")
    renamed = of("renamed in shards", 3, model="tiny-gpt-neox")
    return whole, {
        "tied 3": of("tied in shards", 3),
        "renamed 3": renamed,
        "adapted 3": of_classes("adapted in shards", 3, lora=LORA),
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Copies by way; the cases saved whole; those saved in shards."""
    folder = tmp_path_factory.mktemp("loading")
    loading.make_model(folder / "model", torch.bfloat16)
    one = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(folder / "model").parameters()) * 4
    whole, cut = two_rank_cases(folder, str(folder / "model"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in loading.MAPPED.items():
            patch.setenv(name, value)
        job = loading.job_of(folder / "model", zero_stage=3, workers=2)
        ways = {"before": loading.Way(job=job, before=True), "in parts": loading.Way(job=job)}
        run_ranks(work, 2, folder, ways, [*whole.values()], [*cut.values()], start_method="spawn")
        measured = loading.copies(
            [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)], dict.fromkeys(ways, one)
        )
    return measured, whole, cut


def test_ranks_hold_one_copy_together_where_each_held_its_own(found):
    """Four ranks are in benchmarks/results/loading.json."""
    measured = found[0]
    assert measured["in parts"]["held"] < 1.3
    assert measured["before"]["held"] > 1.9, "the same measure sees a model in every rank"


def test_a_step_after_it_is_the_step_of_stage_0(found):
    _, whole, _ = found
    [loss], [expected] = (whole[f"large {stage}"].curve() for stage in (3, 0))
    assert loss == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("name", "within"), [("classes", 1e-5), ("adapted", 1e-5), ("half", 1e-5)])
def test_head_and_adapters_are_drawn_alike(found, name, within):
    _, whole, _ = found
    assert whole[f"{name} 3"].curve() == pytest.approx(whole[f"{name} 0"].curve(), abs=within)


@pytest.mark.parametrize("name", ["tied 3", "renamed 3", "adapted 3"])
def test_shards_are_the_file(found, name):
    _, whole, cut = found
    folder = cut[name].last / "model"
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    files = set(index["weight_map"].values())
    assert len(files) > 2 and files == {file.name for file in folder.glob("model-*.safetensors")}
    assert index["weight_map"].keys() == whole[name].weights().keys()
    kind = AutoModelForCausalLM if name != "adapted 3" else AutoModelForSequenceClassification
    loaded, expected = (kind.from_pretrained(made.last / "model").state_dict() for made in (cut[name], whole[name]))
    assert all(torch.equal(weight, expected[key]) for key, weight in loaded.items())
    assert "lm_head.weight" not in index["weight_map"], "tied to the embedding, or called embed_out in the checkpoint"
