"""`ray job submit` against a real head, the sweep job, and cluster.yaml against Ray's own schema."""

import json
import os
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
from tiny_runs import ROOT, tiny_run, write_config

from raw2s.cli import main
from raw2s.pipeline.local_ray import free_port
from raw2s.results import Results
from raw2s.tasks import draw_halves
from raw2s.tasks.slurp_scenario import ScenarioSection

BIN = Path(sys.executable).parent
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
    """A small classification run: a model, and a person who labeled 30 of the 48 items and one that is not in B.

    The job and the sweep share its storage, so the sweep finds the job's teachers and labels.
    """
    folder = tmp_path_factory.mktemp("classification")
    task = {"name": "slurp_scenario", "n_teacher": 48, "n_student": 48, "n_validation": 32, "n_test": 24}
    labeled = draw_halves(ScenarioSection(**task), 1).student[:30]
    lines = ["id,label", "-1,alarm", *(f"{example['id']},{example['target']}" for example in labeled)]
    (folder / "ann.csv").write_text("\n".join(lines) + "\n")
    tree = tiny_run(folder / "runs")
    return tree | {
        "task": task,
        "teachers": [tree["teachers"][0], {"name": "ann", "kind": "labels", "file": str(folder / "ann.csv")}],
        "labeling": {"batch_size": 24, "calibrate": "temperature"},
        "student_training": {"epochs": 2, "keep": "best"},
        "methods": [{"method": "bayesian", "loss": {"gamma_max": 0.1, "kl_weight": 0.01}}],
    }


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_a_submitted_classification_job_streams_output_and_returns_its_exit_status(classification, tmp_path, short_folder):
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

        # The sweep trains students.
        good = submit("jobs/full_pipeline.py", "--config", "configs/tiny.yaml", "--set", "methods=[]")
        assert good.returncode == 0, good.stdout + good.stderr
        assert "test/ceiling: done" in good.stdout
        assert "items 30, missing 18, ids_not_in_b 1, annotators 1, accuracy_on_b 1" in good.stdout
        results = Results.read(Path(classification["storage"]) / "tiny")
        assert results.metric == "accuracy"
        assert [teacher.name for teacher in results.tested] == ["gpt2"]
        assert results.students == []
        assert [(teacher.name, teacher.on_b.score) for teacher in results.given] == [("ann", 1.0)]
        bad = submit("jobs/full_pipeline.py", "--config", "configs/tiny.yaml", "--set", "labling.beams=3")
        assert bad.returncode != 0
        assert "labling: unknown key; did you mean labeling?" in bad.stdout + bad.stderr
        where = "from raw2s.pipeline.run import *; print(passing_storage(Path('runs')), passing_storage(Path('/runs')))"
        told = submit("-c", where)
        assert "storage runs lies in this job's copy of its working directory" in told.stdout
        assert "every node sees None" in told.stdout
        assert "this job's copy" not in good.stdout
    finally:
        head.terminate()
        head.wait(timeout=60)


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_sweep_writes_a_config_the_main_job_takes_and_nested_runs(classification, tmp_path):
    storage = Path(classification["storage"])
    *models, ann = classification["teachers"]
    relative = {**ann, "file": Path(ann["file"]).name}  # to where the sweep is started; its trials run elsewhere
    write_config(tmp_path, {**classification, "teachers": [*models, relative]})
    sweep = {"name": "search", "base": "config.yaml", "trials": 2, "concurrent": 2, "grace_epochs": 1}
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
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{storage / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("raw2s").experiment_id])
    trials = [run for run in runs if run.info.run_name.startswith("trial-")]
    assert len(trials) == 2
    assert len({run.data.tags["mlflow.parentRunId"] for run in trials}) == 1
    assert main(["plan", str(best)]) == 0
