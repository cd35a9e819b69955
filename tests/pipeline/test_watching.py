"""What a run tells while it goes: its status file and its trackers, however it ends; and how to find what it made."""

import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import ClassVar

import mlflow
import pytest
import yaml
from faked_runs import fake_models, run_here
from rich.console import Console
from tiny_runs import ROOT, tiny_run

from raw2s.config import parse_config
from raw2s.errors import StageFailed
from raw2s.pipeline.artifacts import Artifact
from raw2s.pipeline.execute import Done
from raw2s.pipeline.run import run_pipeline, scores
from raw2s.pipeline.stage import Stage, Work
from raw2s.pipeline.watching import Watching, kept
from raw2s.report.progress import models
from raw2s.status import RunStatus
from raw2s.tracking import Tracking


@dataclass(frozen=True, kw_only=True)
class Nothing(Stage):
    kind: ClassVar[str] = "nothing"

    def run(self, work: Work):
        raise AssertionError


STAGES = [Nothing(name="a"), Nothing(name="b"), Nothing(name="c")]


def opened(folder):
    return kept(folder, "demo", STAGES, command="raw2s demo", tracked={"mlflow": "id"})


def read(folder) -> RunStatus:
    status = RunStatus.read(folder)
    assert status is not None
    return status


def found(folder, cached=False) -> Done:
    return Done(Artifact(folder, {"seconds": 2.0, "metrics": {"score": 0.5, "unparsable": 1}}), cached=cached)


def test_the_status_follows_the_stages_and_the_trackers_hear_the_same(tmp_path):
    heard = []

    class Heard(Tracking):
        def begin(self, name, settings):
            heard.append(("begin", name))

        def log_points(self, points):
            heard.extend(points)

        def log_ended(self, ended):
            heard.append((ended.status, ended.name, ended.cached, ended.metrics.get("seconds")))

        def tag(self, name, key, value):
            heard.append((key, name, value))

    class Display:
        def warn(self, text):
            heard.append(text)

    with opened(tmp_path) as file:
        assert [own.state for own in read(tmp_path).stages] == ["waiting"] * 3
        watching = Watching(file, Heard(), Display())
        watching.done(STAGES[0], found(tmp_path, cached=True))
        watching.started(STAGES[1])
        watching.progressed({"b": (4, 10, "loss 1"), "a": (1, 1, "")}, [("b", {"step": 1})])
        watching.progressed({"b": (6, 10, "loss 1")}, [])
        watching.started(STAGES[2])
        watching.failed(STAGES[2], "no room")
        a, b, c = read(tmp_path).stages
        assert (a.state, a.cached, a.seconds, a.steps) == ("done", True, 2.0, None)
        assert b.state == "running" and b.steps is not None
        assert (b.steps.first, b.steps.done, b.steps.total) == (4, 6, 10)
        assert (c.state, c.reason) == ("failed", "no room")
    assert "none of the answers is in the asked format" in heard.pop(1)
    assert heard == [
        ("FINISHED", "a", True, 2.0),
        ("begin", "b"),
        ("b", {"step": 1}),
        ("begin", "c"),
        ("FAILED", "c", False, None),
        ("reason", "c", "no room"),
    ]


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (StageFailed("stage a failed: no room"), "failed", "stage a failed: no room"),
        (ValueError("of no stage\nsecond line"), "failed", "ValueError: of no stage"),
        (KeyboardInterrupt(), "killed", "stopped by Ctrl-C or a signal"),
        (SystemExit(15), "killed", "stopped by Ctrl-C or a signal"),
    ],
)
def test_what_ends_a_run_is_in_its_status(tmp_path, error, outcome, reason):
    with pytest.raises(type(error)), opened(tmp_path):
        raise error
    status = read(tmp_path)
    assert (status.outcome, status.reason, status.now()) == (outcome, reason, outcome)


def test_a_run_writes_though_nothing_happens(tmp_path, monkeypatch):
    monkeypatch.setattr("raw2s.pipeline.watching.BEAT_SECONDS", 0.01)
    with opened(tmp_path):
        first, until = read(tmp_path).updated, time.monotonic() + 60
        while read(tmp_path).updated == first and time.monotonic() < until:
            time.sleep(0.01)
        assert read(tmp_path).updated > first
    assert read(tmp_path).outcome == "done"


def test_a_folder_that_is_gone_stops_no_run(tmp_path):
    (tmp_path / "run").mkdir()
    with opened(tmp_path / "run") as file:
        (tmp_path / "run" / "status.json").unlink()
        (tmp_path / "run").rmdir()
        file.say_of("a", state="done")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run all of whose stages are found, after one of the same name was killed; its config, what it printed, its results."""
    folder = tmp_path_factory.mktemp("watched")
    killed = f"""
import os, signal
from pathlib import Path
from raw2s.pipeline.watching import kept
from raw2s.tracking import tracked_run
storage = Path({str(folder / "runs")!r})
with tracked_run("tiny", storage, {{}}) as tracking:
    tracking.begin("student", {{}})
    (storage / "tiny").mkdir()
    with kept(storage / "tiny", "tiny", [], command="", tracked=tracking.ids):
        os.kill(os.getpid(), signal.SIGKILL)
"""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert subprocess.run([sys.executable, "-c", killed], cwd=ROOT).returncode == -signal.SIGKILL
        assert read(folder / "runs" / "tiny").now() == "killed"
        fake_models(patch)

        def fit(job, out, parts, **_):
            (out / "model").mkdir()
            (out / "history.jsonl").touch()
            return {"final_loss": 0.0}

        patch.setattr("raw2s.training.fit.fit", fit)
        patch.setattr("sys.argv", ["/bin/raw2s", "run", "my config.yaml"])
        run_here(folder)
        config = parse_config(tiny_run(folder / "runs"))
        console = Console(record=True, width=100)
        results = run_pipeline(config, console)
        yield config, console.export_text(), results


def test_its_last_lines_say_where_the_models_are_and_how_to_make_them_again(finished):
    config, said, _ = finished
    lines = dict(re.findall(r"^(report|results|model|started|again|mlflow) +(\S.*)$", said, re.MULTILINE))
    folder = config.storage / config.name
    assert lines["results"] == str(folder / "results.json")
    assert lines["started"] == "raw2s run 'my config.yaml'"
    again, _, note = lines["again"].partition("  # ")
    assert again.endswith(f"&& raw2s run {folder}/config.yaml")
    assert parse_config(yaml.safe_load((folder / "config.yaml").read_text())) == config
    assert re.match(r"seeds 1; raw2s [\d.]+", note)
    kept_models = list(models(read(folder), config.storage))
    assert lines["model"] in kept_models and len(kept_models) == 5
    assert lines["mlflow"].endswith(f"--artifacts-destination {config.storage}/mlartifacts")


def test_its_status_is_done_and_every_stage_found(finished):
    config, _, results = finished
    status = read(config.storage / config.name)
    assert (status.now(), status.command) == ("done", "raw2s run 'my config.yaml'")
    assert [own.name for own in status.stages] == [own.name for own in results.stages]
    assert all(own.state == "done" and own.cached for own in status.stages)


def test_mlflow_has_versions_data_links_and_intervals_and_ended_the_killed_run(finished):
    config, _, results = finished
    client = mlflow.MlflowClient(f"sqlite:///{config.storage / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("raw2s").experiment_id])
    assert {run.info.run_name: run.info.status for run in runs if run.info.status != "FINISHED"} == {
        "tiny": "KILLED",
        "student": "KILLED",
    }
    parent = next(run for run in runs if run.info.run_name == "tiny" and run.info.status == "FINISHED")
    assert parent.data.tags["mlflow.source.name"] == "raw2s run 'my config.yaml'"
    assert {"raw2s.raw2s", "raw2s.torch", "raw2s.machine"} <= parent.data.tags.keys()
    assert parent.data.metrics.items() >= scores(results).items()
    assert {own.dataset.name for own in parent.inputs.dataset_inputs} >= {"split teacher", "split student", "testset test"}
    assert all(re.fullmatch("[0-9a-f]{16}", own.dataset.digest) for own in parent.inputs.dataset_inputs)
    student = next(run for run in runs if run.info.run_name == "student/0-bayesian")
    assert (config.storage / student.data.tags["raw2s.model"]).is_dir() and student.data.tags["raw2s.cached"] == "true"


def test_intervals_are_metrics_where_they_are_defined(finished):
    _, _, results = finished
    (first, *_) = results.students
    shown = scores(results.model_copy(update={"students": [first.model_copy(update={"pgr": 0.5, "pgr_ci95": (0.4, None)})]}))
    assert (shown["pgr/0_bayesian"], shown["pgr_low/0_bayesian"]) == (0.5, 0.4)
    assert "pgr_high/0_bayesian" not in shown
