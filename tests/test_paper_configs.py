"""The paper's setup as configs, offline: they plan, fit models and stated GPUs, and are what docs/paper.md says."""

import json
import re
from pathlib import Path

import pytest
import yaml
from model_folders import of_config
from transformers import GPT2Config, GPTNeoXConfig, LlamaConfig, OPTConfig, Qwen2Config

from raw2s.config import RunConfig, load_config, parse_config, read_yaml
from raw2s.pipeline.plan import plan_stages
from raw2s.pipeline.preflight import check

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "paper.md").read_text()
GPUS = 4
TEACHERS = ("gpt2-large", "opt-1.3b", "pythia-1.4b")
SIZES = {
    "openai-community/gpt2-large": GPT2Config(n_embd=1280, n_layer=36, n_head=20),
    "facebook/opt-1.3b": OPTConfig(hidden_size=2048, num_hidden_layers=24, num_attention_heads=32, max_position_embeddings=2048),
    "EleutherAI/pythia-1.4b": GPTNeoXConfig(vocab_size=50304, hidden_size=2048, num_hidden_layers=24, num_attention_heads=16),
    "meta-llama/Llama-2-7b-hf": LlamaConfig(max_position_embeddings=4096),
    "Qwen/Qwen1.5-7B": Qwen2Config(vocab_size=151936, hidden_size=4096, num_hidden_layers=32),
}
"""What decides a plan of the hub's models: kind, vocabulary, positions."""


@pytest.fixture(scope="module")
def sciq(tmp_path_factory) -> str:
    """As many rows as SciQ has."""
    folder = tmp_path_factory.mktemp("sciq")
    for part, rows in (("train", 11_679), ("valid", 1_000), ("test", 1_000)):
        lines = (
            json.dumps({"question": f"{part} {i}?", "correct_answer": "a"} | {f"distractor{k}": f"{k}" for k in (1, 2, 3)})
            for i in range(rows)
        )
        (folder / f"{part}.jsonl").write_text("\n".join(lines))
    return str(folder)


@pytest.fixture(scope="module", params=["slurp", "sciq"])
def config(request, sciq) -> RunConfig:
    overrides = {"slurp": [], "sciq": [f"task.data={sciq}"]}
    return load_config(ROOT / "configs" / f"paper_{request.param}.yaml", overrides[request.param])


def test_it_plans_every_row_of_the_papers_tables(config):
    """With the hub's names, of which no file is asked for."""
    plan = plan_stages(config, config.seeds[0])
    text = config.task.name == "slurp_slots"
    labels = [*(("single", name) for name in TEACHERS), ("naive", None), *([("joint", None)] if text else []), ("bayesian", None)]
    rows = [(*label, sure, aux) for sure in ((False, True) if text else (True,)) for label in labels for aux in (False, True)]
    assert [(m.method, getattr(m, "teacher", None), m.confidence, m.loss.gamma_max > 0) for m in config.methods] == rows
    assert [student.name for student in plan.students if "cdpo" in student.name] == (["bayesian+cdpo"] if text else [])
    assert plan.students[-1].stage.name.startswith("cdpo/23" if text else "student/9-bayesian")
    sizes = {part: len(own) for part, own in plan.label.split.drawn.parts.items()}
    assert sizes == ({"teacher": 2000, "student": 2000} if text else {"teacher": 5000, "student": 5000})
    assert len(plan.testset.drawn.parts["test"]) == (2974 if text else 1000)


def test_its_models_sizes_bear_it(config, tmp_path):
    tree = config.model_dump(mode="json")
    for model in (*tree["teachers"], tree["student"]):
        of_config(tmp_path / model["model"], SIZES[model["model"]])
        model["model"] = str(tmp_path / model["model"])
    check(parse_config(tree))


def test_it_runs_on_the_gpus_that_it_names(config):
    trainings = [config.teacher_training, config.ceiling_training or config.student_training]
    if any(method.cdpo for method in config.methods):
        trainings.append(config.preference.training)
    assert all(t.precision == "bf16" and t.gpus_per_worker == 1 and t.workers <= GPUS for t in trainings)
    actors = [*config.models, config.student]
    assert all(own.num_gpus == 1 for own in actors) and sum(own.num_gpus * own.replicas[0] for own in actors) <= GPUS
    assert "# Four GPUs of 80 GB." in (ROOT / "configs" / f"{config.name}.yaml").read_text()


def at(tree: object, key: str) -> object:
    """The value at a dotted key of a plain tree."""
    for part in key.split("."):
        tree = tree[int(part)] if isinstance(tree, list) else tree[part]
    return tree


@pytest.mark.parametrize("name", ["paper_slurp", "paper_sciq"])
def test_the_pages_table_is_the_config(name):
    tree = parse_config(read_yaml(ROOT / "configs" / f"{name}.yaml", [])).model_dump(mode="json")
    section = PAGE.split(f"## {name}.yaml")[1].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w.]+)` \| `(.+?)` \| (.+) \|$", section, re.MULTILINE)
    assert len(rows) > 20
    wrong = {key: (value, at(tree, key)) for key, value, _ in rows if yaml.safe_load(value) != at(tree, key)}
    assert wrong == {}
