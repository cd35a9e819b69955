"""Label files, crowd methods and fits on devel through every stage of a run, with the models and their training replaced."""

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faked_runs import fake_models, model_logits, run_here
from scipy.special import softmax
from tiny_runs import tiny_run

from raw2s.config import parse_config
from raw2s.decoding.bridge import words
from raw2s.errors import StageFailed
from raw2s.labeling.cross_scores import Scores
from raw2s.labeling.units import Answered
from raw2s.labels.table import BEAMS
from raw2s.pipeline.artifacts import ArtifactStore
from raw2s.pipeline.execute import build
from raw2s.pipeline.plan import plan_stages
from raw2s.pipeline.stage import Work
from raw2s.tasks import draw_halves, task_of
from raw2s.tasks.slurp_scenario import ScenarioSection, scenarios
from raw2s.tasks.slurp_slots import SlotsSection

CLASSES = scenarios()
B = draw_halves(ScenarioSection(n_teacher=48, n_student=24), seed=1).student
IDS = [row["id"] for row in B]
TRUTH = {row["id"]: row["target"] for row in B}
WRONG = {i: CLASSES[(CLASSES.index(name) + 1) % len(CLASSES)] for i, name in TRUTH.items()}
GPT2 = {"name": "gpt2", "model": "tiny-gpt2"}
CLASS_TASK = {"name": "slurp_scenario", "n_teacher": 48, "n_student": 24, "n_validation": 16, "n_test": 24}


def label_file(folder: Path, name: str, rows: list[dict]) -> dict:
    """The config's entry of a teacher that is this file."""
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"name": name, "kind": "labels", "file": str(file)}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs all stages of a config here and gives (results as JSON holds them, the stages' artifacts by name)."""
    fake_models(monkeypatch)

    def go(**sections):
        results, _, artifacts = run_here(tmp_path, **{"task": CLASS_TASK, **sections})
        return json.loads(results.model_dump_json()), artifacts

    return go


def trained_on(artifact) -> dict[int, dict]:
    return {row["id"]: row for row in map(json.loads, (artifact.folder / "train.jsonl").read_text().splitlines())}


def one_hot(name: str) -> np.ndarray:
    return np.eye(len(CLASSES))[CLASSES.index(name)]


def test_a_model_and_two_files_with_missing_items(run, tmp_path):
    pytest.importorskip("crowdkit", reason='pip install "raw2s[crowd]"')
    ann = label_file(tmp_path, "ann", [{"id": i, "label": TRUTH.get(i, "music")} for i in [*IDS[:12], -5]])
    crowd = [{"id": i, "annotator": who, "label": TRUTH[i] if who != "c" else WRONG[i]} for i in IDS[6:] for who in "abc"]
    results, artifacts = run(
        teachers=[GPT2, ann, label_file(tmp_path, "crowd", crowd)],
        methods=[{"method": "naive"}, {"method": "single", "teacher": "ann"}, {"method": "majority", "confidence": False}],
        weights={"loss": [1, 1, 2]},
    )
    labels = artifacts["labels/ann"].metrics
    assert labels == {"items": 12, "missing": 12, "ids_not_in_b": 1, "annotators": 1, "accuracy_on_b": 1.0}
    assert artifacts["labels/crowd"].metrics["annotators"] == 3
    naive = trained_on(artifacts["student/0-naive"])
    assert list(naive) == IDS  # the model labels them all
    model, mean_crowd = softmax(model_logits(IDS[0])), 2 / 3 * one_hot(TRUTH[IDS[8]]) + 1 / 3 * one_hot(WRONG[IDS[8]])
    assert naive[IDS[0]]["probabilities"] == pytest.approx(0.5 * model + 0.5 * one_hot(TRUTH[IDS[0]]), abs=1e-6)
    expected = 0.25 * softmax(model_logits(IDS[8])) + 0.25 * one_hot(TRUTH[IDS[8]]) + 0.5 * mean_crowd
    assert naive[IDS[8]]["probabilities"] == pytest.approx(expected, abs=1e-6)
    alone = trained_on(artifacts["student/1-single-ann"])
    assert list(alone) == IDS[:12]
    assert artifacts["student/1-single-ann"].metrics["without_label"] == 12
    combined = artifacts["combine/majority"].metrics  # the file's three people vote for themselves
    assert (combined["workers"], combined["votes"], combined["items"]) == (5, 24 + 12 + 3 * 18, 24)
    voted = trained_on(artifacts["student/2-majority"])
    assert all(np.argmax(voted[i]["probabilities"]) == CLASSES.index(TRUTH[i]) for i in IDS[6:])
    assert [(t["name"], t["score"] is None) for t in results["teachers"]] == [("gpt2", False), ("ann", True), ("crowd", True)]
    files = {t["name"]: t["on_b"] for t in results["teachers"] if t["on_b"]}
    assert (files["ann"]["score"], files["ann"]["items"]) == (1.0, [12])
    assert files["ann"]["ci95"] == pytest.approx([1.0, 1.0])
    assert files["crowd"]["missing"] == [6]
    assert results["students"][0]["pgr_by_teacher"].keys() == {"gpt2"}


def test_a_model_that_can_answer_no_prompt_stops_the_run(run, monkeypatch):
    def refuse(pool, task, prompts, **_):
        return Answered(BEAMS.empty_table(), dict.fromkeys(prompts, "its prompt is too long"), 0.0)

    monkeypatch.setattr("raw2s.labeling.answers.answers_of", refuse)
    reason = (
        r"24 of 24 prompts cannot be labeled, more than labeling.max_rejected_fraction .*teacher gpt2: its prompt is too long"
    )
    with pytest.raises(StageFailed, match=reason):
        run(task={**CLASS_TASK, "name": "slurp_slots"}, teachers=[GPT2], methods=[{"method": "single", "teacher": "gpt2"}])


def test_people_alone_and_what_nobody_labeled(run, tmp_path):
    sections = {
        "teachers": [
            label_file(tmp_path, "ann", [{"id": i, "label": TRUTH[i]} for i in IDS[:20]]),
            label_file(tmp_path, "bob", [{"id": i, "label": TRUTH[i] if i != IDS[0] else WRONG[i]} for i in IDS[:22]]),
        ],
        "methods": [{"method": "bayesian"}],
    }
    with pytest.raises(StageFailed, match=r"2 of 24 prompts .*no teacher has a label for it.*mend the label files"):
        run(**sections)
    results, artifacts = run(**sections, labeling={"max_rejected_fraction": 0.1})
    assert artifacts["label"].metrics == {"rejected": 2, "prompts": 22}
    rejects = pq.read_table(artifacts["label"].folder / "rejects.parquet").to_pylist()
    assert [(row["id"], row["teacher"]) for row in rejects] == [(i, None) for i in IDS[22:]]
    rows = trained_on(artifacts["student/0-bayesian"])
    assert list(rows) == IDS[:22]
    assert rows[IDS[0]]["probabilities"] == pytest.approx(0.5 * one_hot(TRUTH[IDS[0]]) + 0.5 * one_hot(WRONG[IDS[0]]))
    assert rows[IDS[21]]["probabilities"] == pytest.approx(one_hot(TRUTH[IDS[21]]))
    assert [t["score"] for t in results["teachers"]] == [None, None]
    assert results["students"][0]["pgr"] is None
    assert results["students"][0]["pgr_ci95"] == [None, None]


def test_a_file_changed_after_planning_fails_its_stage(tmp_path):
    entry = label_file(tmp_path, "ann", [{"id": i, "label": TRUTH[i]} for i in IDS])
    config = parse_config(tiny_run(tmp_path, task=CLASS_TASK, teachers=[entry], methods=[]))
    plan = plan_stages(config, 1)
    stage = plan.given["ann"]
    store = ArtifactStore(tmp_path)
    split = build(stage.split, store, Work(inputs={}, out=tmp_path, parts=tmp_path))
    Path(entry["file"]).write_text("")
    with pytest.raises(StageFailed, match="has changed since the run began"):
        stage.run(Work(inputs={stage.split.key: split}, out=tmp_path, parts=tmp_path))


def test_temperatures_and_weights_of_devel_reach_the_student(run):
    results, artifacts = run(
        teachers=[GPT2, {"name": "opt", "model": "tiny-opt"}],
        methods=[{"method": "naive"}, {"method": "naive", "confidence": False}],
        weights={"loss": "devel"},
        labeling={"calibrate": "temperature"},
    )
    fitted = json.loads((artifacts["fit"].folder / "fit.json").read_text())
    metrics = artifacts["fit"].metrics
    temperature = fitted["temperatures"]["gpt2"]
    assert temperature > 1.5  # logits drawn without a look at the truth are too sure
    assert metrics["temperature/gpt2"] == temperature
    assert metrics["nll_calibrated/gpt2"] < metrics["nll/gpt2"]
    assert metrics["nll_mixed/fitted"] <= metrics["nll_mixed/uniform"]
    assert {"ece/opt", "ece_calibrated/opt", "brier/opt", "brier_calibrated/opt", "weight/opt"} <= metrics.keys()
    assert sum(fitted["weights"].values()) == pytest.approx(1)
    rows = trained_on(artifacts["student/0-naive"])  # both models say the same here, so the weights do not show
    assert rows[IDS[0]]["probabilities"] == pytest.approx(softmax(np.array(model_logits(IDS[0])) / temperature), abs=1e-6)
    assert not [t for t in results["teachers"] if t["on_b"]]


def test_weights_of_texts_are_those_of_the_teacher_that_finds_the_truth_likelier(run, monkeypatch):
    truth = {row["id"]: row["target"] for row in task_of(SlotsSection(n_validation=16)).held_out("validation")}
    calls = []

    def surer(asked, candidates, **_):
        """opt is three times as sure of every word as gpt2; it cannot read one of the prompts."""
        calls.append(candidates)

        def scores(pool):
            per_word = {"gpt2": math.log(0.3), "opt": math.log(0.9)}[pool.name]
            of = lambda i: [{"words": [per_word] * (len(words(t)) + 1), "tokens": 9} for t in candidates[i]]  # noqa: E731
            refused = {next(iter(candidates)): "too long"} if pool.name == "opt" and candidates.keys() == truth.keys() else {}
            return Scores(of, Answered(pa.table({}), refused, 0.0))

        return {pool.name: scores(pool) for pool, _ in asked}

    monkeypatch.setattr("raw2s.labeling.cross_scores.cross_score", surer)
    _, artifacts = run(
        task={**CLASS_TASK, "name": "slurp_slots"},
        teachers=[GPT2, {"name": "opt", "model": "tiny-opt"}],
        methods=[{"method": "naive"}],
        weights={"loss": "devel"},
        labeling={"max_rejected_fraction": 0.1},
    )
    metrics = artifacts["fit"].metrics
    assert {i: [text] for i, text in truth.items()} in calls
    assert metrics["items"] == 15 and metrics["rejected"] == 1
    assert metrics["words"] == sum(len(words(text)) + 1 for text in list(truth.values())[1:])
    assert metrics["nll/gpt2"] == pytest.approx(-math.log(0.3)) and metrics["nll_mixed/uniform"] == pytest.approx(-math.log(0.6))
    assert metrics["nll_mixed/fitted"] == pytest.approx(metrics["nll/opt"], abs=1e-3)
    assert metrics["weight/opt"] == pytest.approx(1, abs=1e-3)
    told = trained_on(artifacts["student/0-naive"])[IDS[0]]["targets"]  # both gave one text, and it has both weights
    assert told[0]["weights"] == pytest.approx([metrics["weight/gpt2"], metrics["weight/opt"]])


def test_texts_of_a_file_join_the_models_beams(run, tmp_path):
    told = [{"id": i, "annotator": who, "text": "mine" if who != "c" else "other"} for i in IDS[:10] for who in "abc"]
    results, artifacts = run(
        task={**CLASS_TASK, "name": "slurp_slots"},
        teachers=[GPT2, label_file(tmp_path, "ann", told)],
        methods=[{"method": "bayesian"}, {"method": "joint"}],
        weights={"loss": [1, 3]},
    )
    table = pq.read_table(artifacts["label"].folder / "labels.parquet").to_pylist()
    first = [row for row in table if row["id"] == IDS[0]]
    assert [(row["text"], row["rank"]) for row in first] == [
        ("{}", [0, -1]), (f"model {IDS[0]}", [1, -1]), ("mine", [-1, 0]), ("other", [-1, 1]),
    ]  # fmt: skip
    assert all(row["words"][1] is None and row["tokens"] == [3, None] for row in table)
    rows = trained_on(artifacts["student/0-bayesian"])
    assert [(t["text"], t["weights"]) for t in rows[IDS[0]]["targets"]] == [("{}", [0.25]), ("mine", [0.75])]
    assert rows[IDS[0]]["targets"][1]["word_logprobs"] == [[0.0, 0.0]]
    assert [(t["text"], t["weights"]) for t in rows[IDS[10]]["targets"]] == [("{}", [1.0])]
    assert trained_on(artifacts["student/1-joint"]).keys() == set(IDS)
    assert results["teachers"][1]["on_b"]["score"] == 0
    assert artifacts["labels/ann"].metrics["unparsable"] == 10
