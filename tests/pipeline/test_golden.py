"""What every kind of stage makes of a fixed small input. Another content under the same key would be found by older runs' names:

whoever changes it on purpose raises the stage's `version`, and puts the digest that the failure prints in here.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from faked_runs import fake_models, run_here

from raw2s.pipeline.stage import Stage
from raw2s.tasks import draw_halves
from raw2s.tasks.slurp_scenario import ScenarioSection

MODELS = [{"name": "gpt2", "model": "tiny-gpt2"}, {"name": "opt", "model": "tiny-opt"}]
GOLDEN = {
    "split": (1, "35aaa5c37dfc7314"),
    "train": (2, "fe0b906e66684234"),
    "as-it-is": (1, "3456ea0c82b21bba"),
    "answers": (1, "7d0ca5d0b3d8fb69"),
    "label": (1, "dcebf8612a43a913"),
    "test": (1, "0f3e86d58d008630"),
    "student": (2, "f63b2cf479ca1cb0"),
    "pairs": (2, "e2912bd85af2c4cb"),
    "cdpo": (2, "ccbf11dd0399b8ed"),
    "fit": (1, "1e3d6437f51b4744"),
    "combine": (1, "a64b27e232afe0ea"),
    "labels": (1, "aff602dea5fbadb9"),
    "logits": (1, "855afb4a3f1e4e84"),
    "doubt": (1, "b243c88e875b681a"),
    "dropout": (1, "cf35bd2b1c93a714"),
}
"""(version, digest)."""


def rounded(value):
    """Floats to six digits: the last ones are the machine's."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list) else value


def content(file: Path):
    match file.suffix:
        case ".parquet":
            return pq.read_table(file).to_pylist()
        case ".npy":
            return np.load(file).tolist()
        case ".jsonl":
            return [json.loads(line) for line in file.read_text().splitlines()]
    return json.loads(file.read_text())


def digest(folder: Path) -> str:
    files = sorted(file for file in folder.iterdir() if file.name != "manifest.json")
    text = json.dumps([[file.name, rounded(content(file))] for file in files], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def kinds(stage: type[Stage] = Stage) -> dict[str, type[Stage]]:
    """Every kind of stage that raw2s has, by its name; other tests of this process may define their own."""
    found = {stage.kind: stage} if "kind" in vars(stage) and stage.__module__.startswith("raw2s.") else {}
    return found | {kind: inner for sub in stage.__subclasses__() for kind, inner in kinds(sub).items()}


@pytest.fixture
def made(tmp_path, monkeypatch) -> dict[str, tuple[int, str]]:
    """By kind the version, and a digest over what all its stages made in two runs."""
    fake_models(monkeypatch)
    student = draw_halves(ScenarioSection(**SMALL), seed=1).student
    label_file = tmp_path / "ann.jsonl"
    label_file.write_text("".join(json.dumps({"id": e["id"], "label": e["target"]}) + "\n" for e in student[:12]))
    found: dict[str, list[str]] = {}
    versions: dict[str, int] = {}
    files = {
        "people": {"teachers": [{"name": "ann", "kind": "labels", "file": str(label_file)}], "methods": [{"method": "naive"}]}
    }
    files["people"] |= {"task": {"name": "slurp_scenario", **SMALL}, "labeling": {"max_rejected_fraction": 0.5}}
    for name, sections in (RUNS | files).items():
        _, stages, artifacts = run_here(tmp_path / name, **sections)
        for stage in stages:
            found.setdefault(stage.kind, []).append(digest(artifacts[stage.name].folder))
            versions[stage.kind] = stage.version
    return {kind: (versions[kind], hashlib.sha256("".join(d).encode()).hexdigest()[:16]) for kind, d in found.items()}


SMALL = {"n_teacher": 24, "n_student": 16, "n_validation": 16, "n_test": 8}
RUNS = {
    "text": {
        "task": {"name": "slurp_slots", **SMALL},
        "teachers": [*MODELS, {"name": "plain", "model": "tiny-gpt2", "fine_tune": False, "shots": 2}],
        "methods": [{"method": "naive"}, {"method": "joint"}, {"method": "bayesian", "cdpo": True}],
        "evaluation": {"batch_size": 12, "resamples": 50, "doubt": True, "dropout_passes": 2},
    },
    "classes": {
        "task": {"name": "slurp_scenario", **SMALL},
        "teachers": MODELS,
        "methods": [{"method": "naive"}, {"method": "majority"}],
        "weights": {"loss": "devel"},
        "evaluation": {"batch_size": 12, "resamples": 50, "doubt": True, "dropout_passes": 2},
    },
}


def test_every_kind_of_stage_is_here():
    assert kinds().keys() == GOLDEN.keys() | {"converted"}  # which is as CTranslate2 writes it


def test_the_same_input_gives_the_same_content(made):
    pytest.importorskip("crowdkit", reason='pip install "raw2s[crowd]"')
    wrong = {kind: found for kind, found in made.items() if GOLDEN.get(kind) != found}
    assert not wrong, f"another content: raise `version` of these stages, and put in here {wrong}"
