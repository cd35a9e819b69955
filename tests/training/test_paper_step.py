"""One optimizer step of the trainings in the paper's configs, on two CPU ranks in the configs' own bf16 and ZeRO stages.

The models are tiny and random, of the five real architectures with the real tokenizers; what teachers and student would have
answered is made up. Both configs share one start of processes.
"""

import dataclasses
import math
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from plain_workers import Case, train_without_ray
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from raw2s.config import RunConfig, parse_config, read_yaml
from raw2s.decoding.bridge import words
from raw2s.labeling.cross_scores import Scores
from raw2s.labeling.units import Answered
from raw2s.pipeline.artifacts import ArtifactStore
from raw2s.pipeline.execute import build
from raw2s.pipeline.plan import plan_stages
from raw2s.pipeline.stage import Work
from raw2s.training.job import Job

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("RAW2S_SHARED", ROOT.parent / "shared")) / "data"

LAYERS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
GATED = LAYERS | {"intermediate_size": 32, "num_key_value_heads": 2}
FAMILIES = {
    "openai-community/gpt2-large": (
        GPT2Config(vocab_size=50257, n_embd=16, n_layer=2, n_head=2), "gpt2", {"eos_token": "<|endoftext|>"},
    ),
    "facebook/opt-1.3b": (
        OPTConfig(vocab_size=50272, ffn_dim=32, word_embed_proj_dim=16, **LAYERS),
        "opt",
        {"eos_token": "</s>", "pad_token": "<pad>"},
    ),
    "EleutherAI/pythia-1.4b": (
        GPTNeoXConfig(vocab_size=50304, intermediate_size=32, **LAYERS), "pythia_neox20b", {"eos_token": "<|endoftext|>"},
    ),
    "meta-llama/Llama-2-7b-hf": (LlamaConfig(vocab_size=32000, **GATED), "llama2", {"eos_token": "</s>"}),
    "Qwen/Qwen1.5-7B": (
        Qwen2Config(vocab_size=151936, **GATED), "qwen", {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
    ),
}  # fmt: skip
"""By the hub id that the configs name: architecture and vocabulary, the tokenizer's folder, its special tokens."""

SAID = {
    "gpt2-large": '{"date": "today", "event_name": "business meeting"}',
    "opt-1.3b": '{"time": "half past nine"}',
    "pythia-1.4b": "{}",
}
"""Each teacher's best text for every prompt."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder is not here"),
]


def answers_of(pool, task, prompts, **_):
    """Stands for the actors of a model; the student's own beams are all the teachers' texts."""
    rows = [
        {"id": i, "logits": [len(pool.name) / 10, i % 3 - 1.0]}
        if task.form == "classes"
        else {"id": i, "texts": [SAID[pool.name]] if pool.name in SAID else list(SAID.values())}
        for i in prompts
    ]
    return Answered(pa.Table.from_pylist(rows), {}, 1.0)


def cross_score(asked, candidates, **_):
    """Stands for the actors that score: a word is less likely the later its text stands."""

    def of(i):
        return [{"words": [-0.1 - place] * (len(words(text)) + 1), "tokens": 9} for place, text in enumerate(candidates[i])]

    return {pool.name: Scores(of, Answered(pa.table({}), {}, 0.0)) for pool, _ in asked}


def tiny_models(folder: Path) -> dict[str, str]:
    """The folder that stands for each hub id."""
    torch.manual_seed(0)
    for hub_id, (config, tokenizer, tokens) in FAMILIES.items():
        file = SHARED / "tokenizers" / tokenizer / "tokenizer.json"
        PreTrainedTokenizerFast(tokenizer_file=str(file), **tokens).save_pretrained(folder / hub_id)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / hub_id)
    return {hub_id: str(folder / hub_id) for hub_id in FAMILIES}


def here(tree: dict, models: dict[str, str], sizes: dict) -> RunConfig:
    """A config on two CPU workers, with one step's data and one epoch; of each loss the last method, and all else as it is."""
    tree["task"] |= sizes
    for model in (*tree["teachers"], tree["student"]):
        model |= {"model": models[model["model"]], "num_gpus": 0}
    preference = [tree["preference"]["training"]] if "preference" in tree else []
    for training in (tree["teacher_training"], tree["student_training"], *preference):
        training |= {"workers": 2, "gpus_per_worker": 0, "epochs": 1, "checkpoint_every": None}
    config = parse_config(tree)
    methods = {method.loss.name: method for method in config.methods}
    return config.model_copy(update={"methods": list(methods.values()), "seeds": [0]})


def jobs_of(config: RunConfig, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Job]:
    """The run's trainings as their workers would be told of them, by stage; a trained model is the one it started from.

    But for the ceiling: it is trained as the student of cross entropy is, on other labels.
    """
    jobs = {}

    def fit(job, out, parts, **_):
        kept = folder / "rows" / job.name.replace("/", "-")
        kept.mkdir(parents=True)
        train, validation = (shutil.copy(file, kept) for file in (job.train_file, job.validation_file))
        jobs[job.name] = dataclasses.replace(job, train_file=str(train), validation_file=str(validation))
        shutil.copytree(job.model, out / "model")
        return {}

    monkeypatch.setattr("raw2s.labeling.answers.answers_of", answers_of)
    monkeypatch.setattr("raw2s.labeling.cross_scores.cross_score", cross_score)
    monkeypatch.setattr("raw2s.training.fit.fit", fit)
    store, done = ArtifactStore(folder / "artifacts"), {}
    for stage in plan_stages(config, 0).in_order():
        if stage.kind != "test" and stage.name != "ceiling":
            done[stage.key] = build(stage, store, Work(inputs=done, out=folder, parts=folder))
    return jobs


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> dict[str, Case]:
    """The finished trainings, `slurp` and `sciq` before the stage's name."""
    folder = tmp_path_factory.mktemp("paper")
    models, sciq = tiny_models(folder), {"data": str(SHARED / "sciq")}
    sizes = {
        "slurp": {"n_teacher": 8, "n_student": 2, "n_validation": 4, "n_test": 4},
        "sciq": {"n_teacher": 32, "n_student": 32, "n_validation": 4, "n_test": 4, **sciq},
    }
    made = {}
    for name, few in sizes.items():
        config = here(read_yaml(ROOT / "configs" / f"paper_{name}.yaml", []), models, few)
        with pytest.MonkeyPatch.context() as monkeypatch:
            jobs = jobs_of(config, folder / name, monkeypatch)
        made |= {f"{name} {stage}": Case(job, folder / name / "out" / stage) for stage, job in jobs.items()}
    train_without_ray(list(made.values()), workers=2)
    return made


def test_every_training_of_both_configs_takes_its_step(cases):
    teachers = {f"{name} teacher/{teacher}" for name in ("slurp", "sciq") for teacher in SAID}
    students = {"slurp student/0-joint", "slurp student/1-bayesian", "sciq student/0-naive", "sciq student/1-bayesian"}
    assert cases.keys() == teachers | students | {"slurp cdpo/1"}
    for name, case in cases.items():
        training = case.job.training
        assert training.precision == "bf16" and training.zero_stage == (1 if "teacher" in name else 3 if "slurp" in name else 2)
        assert case.curve("learning_rate") == [training.learning_rate], name
        assert case.curve("gradient_norm")[0] > 0, name


def test_losses_start_where_random_weights_leave_them(cases):
    """Logits are about 0, so all pieces, or classes, are alike, by a Dirichlet too, whose regulariser's weight starts at 0."""
    for name, case in cases.items():
        if case.job.rows == "pair":
            continue
        size = 2 if case.job.form == "classes" else AutoModelForCausalLM.from_pretrained(case.job.model).config.vocab_size
        assert case.curve()[0] == pytest.approx(math.log(size), rel=0.05), name


def test_preference_starts_at_log_2_in_bf16(cases):
    """Policy and reference are the same numbers, whatever beta."""
    case = cases["slurp cdpo/1"]
    assert case.job.loss.beta == 10 and case.job.rows == "pair"
    assert case.curve() == pytest.approx([math.log(2)], abs=1e-3)
    assert case.curve("margin") == pytest.approx([0], abs=1e-3)
