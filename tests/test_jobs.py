"""`ray job submit` against a real head, the sweep job, and cluster.yaml against Ray's own schema."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import mlflow
import pytest
import ray
import yaml
from own_mails import TEAMS, mails, own_mails
from tiny_runs import ROOT, tiny_run, write_config

from raw2s.cli import main
from raw2s.labels.table import read_table
from raw2s.pipeline.local_ray import free_port
from raw2s.results import Results

BIN = Path(sys.executable).parent
BAD = """
import runpy, sys
from pathlib import Path
from raw2s.pipeline.run import passing_storage

print(passing_storage(Path("runs")), passing_storage(Path("/runs")))
sys.argv = ["full_pipeline.py", "--config", "configs/tiny.yaml", "--set", "labling.beams=3"]
runpy.run_path("jobs/full_pipeline.py", run_name="__main__")
"""
"""What is said of two storages in a job, and a job with a mistake in its config."""
NOT_YET_UP = ("Failed to connect to Ray", "No available agent")
"""What `ray job submit` says while a head starts: first its job server comes up, then the agent that starts jobs."""


def test_cluster_yaml_fits_rays_schema():
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    jsonschema.validate(cluster, schema)
    assert cluster["provider"]["type"] == "local"
    starts = [c for use in ("head", "worker") for c in cluster[f"{use}_start_ray_commands"] if "ray start" in c]
    assert len(starts) == 2 and all(c.startswith("RAY_AUTH_MODE=token ") and "0.0.0.0" not in c for c in starts)


@pytest.fixture
def short_folder() -> Iterator[str]:
    """Ray's sockets lie in it, and a socket's path has at most 107 characters: pytest's folders are too deep."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield folder


@pytest.fixture(scope="module")
def classification(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """A small run over classes of one's own. The job and the sweep share its storage, so the sweep finds the job's labels."""
    folder = tmp_path_factory.mktemp("classification")
    return (
        tiny_run(folder / "runs")
        | own_mails(folder)
        | {
            "labeling": {"batch_size": 24, "calibrate": "temperature"},
            "student_training": {"epochs": 2, "keep": "best"},
            "methods": [{"method": "bayesian", "loss": {"gamma_max": 0.1, "kl_weight": 0.01}}],
        }
    )


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_a_submitted_job_of_own_classes_streams_output_and_returns_its_exit_status(classification, tmp_path, short_folder):
    """A head of our own, started and stopped by its process, on loopback only; with a token, as the README says."""
    dashboard = free_port()
    environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
    environment |= {"HOME": str(tmp_path), "RAY_AUTH_MODE": "token", "PYTHONUNBUFFERED": "1"}
    subprocess.run([str(BIN / "ray"), "get-auth-token", "--generate"], env=environment, check=True, capture_output=True)
    head = subprocess.Popen(
        [
            str(BIN / "ray"), "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={free_port()}",
            "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={free_port()}",
            "--num-cpus=8", "--object-store-memory=300000000",
            f"--temp-dir={short_folder}", "--disable-usage-stats",
        ],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        working_dir = tmp_path / "checkout"
        working_dir.mkdir()
        for part in ("raw2s", "jobs", "configs"):
            shutil.copytree(ROOT / part, working_dir / part, ignore=shutil.ignore_patterns("__pycache__"))
        (working_dir / "configs" / "tiny.yaml").write_text(yaml.safe_dump(classification))

        def submit(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [
                str(BIN / "ray"), "job", "submit", "--address", f"http://127.0.0.1:{dashboard}", "--working-dir", str(working_dir),
                "--", sys.executable, *arguments,
            ]  # fmt: skip
            for _ in range(60):
                done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
                if not any(reason in done.stderr for reason in NOT_YET_UP):
                    return done
                time.sleep(1)
            raise TimeoutError(done.stderr)

        good = submit("jobs/full_pipeline.py", "--config", "configs/tiny.yaml")
        assert good.returncode == 0, good.stdout + good.stderr
        assert "test/ceiling: done" in good.stdout
        assert "tiny: own, 12 test examples" in good.stdout
        check_own_classes(Path(classification["storage"]))
        bad = submit("-c", BAD)
        assert bad.returncode != 0
        assert "labling: unknown key; did you mean labeling?" in bad.stdout + bad.stderr
        assert "storage runs lies in this job's copy of its working directory" in bad.stdout
        assert "every node sees None" in bad.stdout
        assert "this job's copy" not in good.stdout
    finally:
        head.terminate()
        head.wait(timeout=60)


def check_own_classes(storage: Path) -> None:
    """What a run over `own_mails` leaves."""
    results = Results.read(storage / "tiny")
    assert (results.task, results.form, results.metric) == ("own", "classes", "macro_f1")
    model, people = results.teachers
    assert results.ceiling is not None
    assert all(0 <= system.score <= 1 for system in (model, results.ceiling, *results.students))
    assert (people.score, people.on_b.score) == (None, 1)

    def made(name: str) -> Path:
        key = next(stage.key for stage in results.stages if stage.name == name)
        return next(storage.glob(f"artifacts/*/{key}"))

    with (made("split") / "student.jsonl").open() as file:
        ids = [json.loads(line)["id"] for line in file]
    labeled = len([i for i in ids if i >= 4])
    assert (people.on_b.items, people.on_b.missing, people.on_b.ids_not_in_b) == ([labeled], [24 - labeled], [53 - labeled])
    config = json.loads((made(results.students[0].stage) / "model" / "config.json").read_text())
    assert list(config["id2label"].values()) == sorted(TEAMS)
    table, names = read_table(made("label") / "labels.parquet")
    assert names == ["gpt2", "people"]
    for row in table:
        assert len(row["logits"][0]) == 4
        assert (row["logits"][1] is None) == (row["id"] < 4)
        if row["id"] >= 4:
            assert sorted(TEAMS)[row["logits"][1].index(max(row["logits"][1]))] == mails(row["id"], 1)[0]["team"]
    report = " ".join((storage / "tiny" / "report.html").read_text().split())
    assert "macro F1" in report
    assert "Data: Mails made for a test." in report


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_sweep_writes_a_config_the_main_job_takes_and_nested_runs(classification, tmp_path, monkeypatch, capsys):
    """One of its trials fits temperatures, so its own process labels devel if no job has; the second start repeats nothing."""
    storage = Path(classification["storage"])
    *models, people = classification["teachers"]
    relative = {**people, "file": Path(people["file"]).name}  # to where the sweep is started; its trials run elsewhere
    write_config(tmp_path, {**classification, "teachers": [*models, relative]})
    sweep = {
        "base": "config.yaml",
        "sweep": {"name": "search", "trials": 2, "search": "random"},
        "methods": {0: {"loss": {"gamma_max": {"uniform": [0, 0.5]}}}},
        "labeling": {"calibrate": {"choice": [None, "temperature"]}},
        "weights": {"loss": {"simplex": 2}},
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "jobs" / "sweep.py"), "--config", str(tmp_path / "sweep.yaml")],
        env=environment, cwd=storage.parent, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((storage / "artifacts" / "label").glob("*/manifest.json"))) == 1
    best = storage / "search" / "best.yaml"
    weights = yaml.safe_load(best.read_text())["weights"]["loss"]
    assert len(list((storage / "artifacts" / "fit").glob("*/fit.json"))) == 1
    assert sum(weights) == pytest.approx(1, abs=1e-5)
    assert len([line for line in done.stdout.splitlines() if line.startswith("trial ")]) == 2, done.stdout + done.stderr
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{storage / 'mlflow.db'}")

    def logged() -> list:
        runs = client.search_runs([client.get_experiment_by_name("raw2s").experiment_id])
        return [run for run in runs if run.info.run_name.startswith("trial-")]

    trials = logged()
    assert len(trials) == 2
    assert len({run.data.tags["mlflow.parentRunId"] for run in trials}) == 1
    assert {run.data.params["labeling.calibrate"] for run in trials} == {"None", "temperature"}
    (chosen,) = [run for run in trials if "raw2s.best" in run.data.tags]
    assert chosen.data.tags["raw2s.status"] == "finished"
    assert chosen.data.metrics["devel_score"] == max(run.data.metrics["devel_score"] for run in trials)
    assert all(0 < run.data.metrics["devel_score_se"] < 0.3 for run in trials)
    assert f"report   {storage / 'search' / 'report.html'}" in done.stdout
    parent = chosen.data.tags["mlflow.parentRunId"]
    assert {file.path for file in client.list_artifacts(parent)} == {"best.yaml", "report.html"}
    monkeypatch.chdir(storage.parent)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["plan", str(best)]) == 0
    assert re.search(r"student/0-bayesian +student/\w+ +finished", capsys.readouterr().out)
    before = best.read_text()
    assert main(["sweep", str(tmp_path / "sweep.yaml")]) == 0
    assert "by trials 0 found, 0 made" in capsys.readouterr().out
    assert best.read_text() == before
    assert len(logged()) == 4
