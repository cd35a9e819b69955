import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import mlflow
import pytest
import requests
from closed_port import NOBODY
from tiny_runs import ROOT, tiny_run

from raw2s.config import parse_config
from raw2s.errors import ConfigError
from raw2s.pipeline.preflight import _check_packages
from raw2s.tracking import TRACKERS, Ended, tracked_run
from raw2s.tracking.mlflow import MlflowTracker
from raw2s.tracking.tracker import Data

POINT = ("student/0", {"step": 1, "loss": 2.0, "time": 1e12})


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def nobody(monkeypatch) -> str:
    """An address at which nothing answers; it has a password in it."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return f"http://me:secret@{NOBODY}"


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A database with its tables, which take MLflow a second to make, and the experiment."""
    folder = tmp_path_factory.mktemp("tables")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with tracked_run("earlier", folder, {}):
            pass
    return folder / "mlflow.db"


@pytest.fixture
def storage(tmp_path, tables):
    (tmp_path / "runs").mkdir()
    shutil.copy(tables, tmp_path / "runs" / "mlflow.db")
    return tmp_path / "runs"


def ended(name, **changes) -> Ended:
    return Ended(**{"name": name, "key": name, "cached": False, "settings": {}, "metrics": {}} | changes)


def runs_in(storage) -> dict[str, mlflow.entities.Run]:
    client = mlflow.MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("raw2s").experiment_id])
    return {run.info.run_name: run for run in runs if run.info.run_name != "earlier"}


@pytest.mark.timeout(60)
def test_ctrl_c_cuts_off_no_write(monkeypatch, storage):
    """Cut off in the middle, it would leave SQLite locked and both runs RUNNING."""
    begun, stopped, written = threading.Event(), threading.Event(), threading.Event()
    write = MlflowTracker.log_points

    def slow(self, points):
        begun.set()
        stopped.wait(timeout=30)
        time.sleep(0.2)  # in which the main thread hears of it
        write(self, points)
        written.set()

    monkeypatch.setattr(MlflowTracker, "log_points", slow)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started behind an & ignores it

    def stop() -> None:
        begun.wait()
        os.kill(os.getpid(), signal.SIGINT)
        stopped.set()

    stopping = threading.Thread(target=stop)
    stopping.start()
    with pytest.raises(KeyboardInterrupt), tracked_run("run", storage, {}) as tracking:
        tracking.begin("student/0", {})
        tracking.log_points([POINT])
    stopping.join()
    signal.signal(signal.SIGINT, before)
    assert written.is_set()
    found = runs_in(storage)
    assert {name: run.info.status for name, run in found.items()} == {"run": "KILLED", "student/0": "KILLED"}
    assert found["student/0"].data.metrics["train/loss"] == 2.0


def test_a_stages_curve_is_there_while_it_trains(storage):
    with tracked_run("run", storage, {"seed": 1}) as tracking:
        tracking.log_points([("student/0", {"step": 1, "loss": 2.0, "tokens_per_second": 90.0, "time": 1e12})])
        tracking.log_points([("student/0", {"step": 2, "loss": 1.5, "time": 1e12 + 500}), ("ceiling", POINT[1])])
        client = mlflow.MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
        runs = runs_in(storage)
        assert runs["student/0"].info.status == "RUNNING"
        assert runs["student/0"].data.tags["mlflow.parentRunId"] == runs["run"].info.run_id
        history = client.get_metric_history(runs["student/0"].info.run_id, "train/loss")
        assert [(point.step, point.value) for point in history] == [(1, 2.0), (2, 1.5)]
        tracking.log_ended(ended("student/0", settings={"gamma": 0.1}, metrics={"final_loss": 1.5}))
        tracking.log_ended(ended("trial-1", status="FAILED"))
    runs = runs_in(storage)
    assert runs["run"].data.params == {"seed": "1"}
    assert runs["student/0"].info.status == "FINISHED"
    assert runs["student/0"].data.params == {"gamma": "0.1"}
    assert runs["trial-1"].info.status == "FAILED"
    assert len(runs) == 4


def test_more_than_a_batch_holds_is_all_there(storage):
    settings, metrics = {f"k{i}": i for i in range(250)}, {f"m{i}": i for i in range(1100)}
    with tracked_run("run", storage, {}) as tracking:
        tracking.log_ended(ended("split", settings=settings, metrics=metrics))
    run = runs_in(storage)["split"]
    assert run.data.params == {k: str(v) for k, v in settings.items()}
    assert run.data.metrics == metrics


def test_a_stage_starts_when_it_begins_and_a_found_one_names_what_made_it(storage):
    with tracked_run("first", storage, {}) as tracking:
        tracking.begin("label", {"beams": 5})
        time.sleep(0.3)
        tracking.log_ended(ended("label", key="abc", settings={"beams": 5}, links={"artifact": "artifacts/label/abc"}))
        tracking.log_ended(ended("label/failed", key="abc", status="FAILED"))
    made = runs_in(storage)["label"]
    assert made.info.end_time - made.info.start_time >= 300
    assert made.data.params == {"beams": "5"} and made.data.tags["raw2s.artifact"] == "artifacts/label/abc"
    assert made.data.tags["raw2s.cached"] == "false" and "raw2s.made_by" not in made.data.tags
    for name in ("second", "third"):
        with tracked_run(name, storage, {}) as tracking:
            tracking.log_ended(ended(f"label of {name}", key="abc", cached=True))
            tracking.log_ended(ended(f"split of {name}", key="unknown", cached=True))
    runs = runs_in(storage)
    for name in ("second", "third"):
        found = runs[f"label of {name}"]
        assert found.data.tags["raw2s.cached"] == "true"
        assert found.data.tags["raw2s.made_by"] == made.info.run_id, "the one that made it, not one that found it"
        assert made.info.run_id in found.data.tags["mlflow.note.content"]
        assert "raw2s.made_by" not in runs[f"split of {name}"].data.tags


def test_what_made_a_run_and_its_data_stand_beside_it(storage):
    about = {"command": "raw2s run c.yaml", "commit": "abc, changed", "torch": "2.13"}
    with tracked_run("run", storage, {}, about=about) as tracking:
        tracking.log_data(
            Data(name="split", digest="0123456789abcdef", folder="artifacts/split/k", sizes={"teacher": 3, "student": 4})
        )
    run = runs_in(storage)["run"]
    tags = run.data.tags
    assert (tags["mlflow.source.name"], tags["raw2s.torch"]) == ("raw2s run c.yaml", "2.13")
    assert (tags["mlflow.source.git.commit"], tags["mlflow.source.git.dirty"]) == ("abc", "true")
    read = {
        data.dataset.name: (data.dataset.digest, data.tags[0].value, data.dataset.profile) for data in run.inputs.dataset_inputs
    }
    assert read == {
        "split teacher": ("0123456789abcdef", "teacher", '{"num_rows": 3}'),
        "split student": ("0123456789abcdef", "student", '{"num_rows": 4}'),
    }


def test_a_database_moves_with_its_files(storage, tmp_path):
    page = tmp_path / "report.html"
    page.write_text("a page")
    with tracked_run("run", storage, {}) as tracking:
        tracking.log_results({"pgr/0": 0.5, "pgr_low/0": 0.4}, [page], "part")
    moved = storage.rename(tmp_path / "moved")
    run = runs_in(moved)["run"]
    assert str(tmp_path) not in run.info.artifact_uri
    place = run.info.artifact_uri.removeprefix("mlflow-artifacts:/")
    assert (moved / "mlartifacts" / place / "part" / "report.html").read_text() == "a page"
    with tracked_run("again", moved, {}) as tracking:
        tracking.log_results({}, [page])
        assert str(moved / "mlartifacts") in tracking.where
    assert len(list((moved / "mlartifacts").rglob("report.html"))) == 2
    assert not storage.exists()


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")])
def test_a_run_ends_as_what_ended_it_and_so_do_the_stages_it_left(storage, error, status):
    with pytest.raises(error), tracked_run("run", storage, {}) as tracking:
        tracking.begin("running", {})
        tracking.log_ended(ended("done"))
        raise error
    assert {name: run.info.status for name, run in runs_in(storage).items()} == {
        "run": status,
        "running": status,
        "done": "FINISHED",
    }


def test_a_run_that_is_refused_leaves_none(storage):
    with pytest.raises(ConfigError), tracked_run("run", storage, {}) as tracking:
        tracking.log_ended(ended("found"))
        raise ConfigError("no place for it")
    assert runs_in(storage) == {}


def test_what_goes_wrong_after_a_trial_has_begun_leaves_all_of_them(storage):
    """A node has gone, and the best trial of a sweep has no place to be trained to its end."""
    with pytest.raises(ConfigError), tracked_run("sweep", storage, {}) as tracking:
        tracking.begin("trial-1", {"gamma": 0.1})
        tracking.log_ended(ended("trial-1"))
        raise ConfigError("stage student/0: no place for it")
    assert {name: run.info.status for name, run in runs_in(storage).items()} == {"sweep": "FAILED", "trial-1": "FINISHED"}


@pytest.mark.parametrize("named", ["the run", "a stage"])
def test_what_a_killed_process_left_running_is_ended_as_killed(storage, named):
    killed = tracked_run("before", storage, {})
    before = killed.__enter__()  # and never left
    for name in ("trial-1", "trial-3"):
        before.begin(name, {"gamma": 0.1})
    before.log_ended(ended("trial-2"))
    with tracked_run("now", storage, {}) as tracking:
        tracking.begin("own", {})
        tracking.end_killed(before.ids["mlflow"] if named == "the run" else before.run_id("trial-1"))
        tracking.end_killed("f" * 32)  # of a database that was deleted
        assert not tracking.trackers["mlflow"].lost
        status = {name: run.info.status for name, run in runs_in(storage).items()}
        killed = dict.fromkeys(("before", "trial-1", "trial-3"), "KILLED")
        assert status == {**killed, "trial-2": "FINISHED", "now": "RUNNING", "own": "RUNNING"}


@pytest.mark.parametrize(
    ("uri", "where"),
    [
        ("sqlite:////runs/mlflow.db", "mlflow ui --backend-store-uri sqlite:////runs/mlflow.db --artifacts-destination /runs/mlartifacts"),
        ("https://me:secret@mlflow.example:5000/team", "https://mlflow.example:5000/team"),
        ("postgresql://me:se@cret@db/mlflow", "postgresql://db/mlflow"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
    ],
)  # fmt: skip
def test_where_to_look_holds_no_password(uri, where):
    assert MlflowTracker(None, "1", "parent", uri).where == where


def test_a_server_that_is_not_there_is_told_in_one_line_without_its_password(storage, monkeypatch, nobody):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody)
    with (
        pytest.raises(ConfigError, match=r"^MLFLOW_TRACKING_URI: no MLflow at http://127.*; start it") as told,
        tracked_run("run", storage, {}),
    ):
        pass
    assert "secret" not in str(told.value) and "\n" not in str(told.value)


def test_a_server_that_is_lost_on_the_way_stops_nothing(storage, nobody):
    with tracked_run("run", storage, {}) as tracking:
        assert "incomplete" not in tracking.where
        tracking.trackers["mlflow"].client = mlflow.MlflowClient(nobody)
        tracking.log_points([POINT])
        tracking.log_ended(ended("student/0"))
        assert "it stopped answering" in tracking.where


def test_an_upload_that_is_refused_is_said_and_stops_nothing(storage, tmp_path, monkeypatch):
    """As a proxy refuses it; and what else is told is there."""

    def refused(self, run_id, file, folder=None):
        where = "https://me:secret@mlflow.example/api/2.0/mlflow-artifacts/artifacts/report.html?signature=abc"
        raise requests.HTTPError(f"413 Client Error: Request Entity Too Large for url: {where}")

    monkeypatch.setattr(mlflow.MlflowClient, "log_artifact", refused)
    monkeypatch.setattr("raw2s.tracking.mlflow.PROXIED", "s3://")
    with tracked_run("run", storage, {}) as tracking:
        tracking.log_results({"pgr/0": 0.5}, [tmp_path / "report.html"])
        tracking.log_results({"pgr/1": 0.25}, [tmp_path / "report.html"])
    assert tracking.where.endswith(
        "(incomplete: HTTPError: 413 Client Error: Request Entity Too Large for url: "
        "https://mlflow.example/api/2.0/mlflow-artifacts/artifacts/report.html)\n"
    )
    run = runs_in(storage)["run"]
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"pgr/0": 0.5, "pgr/1": 0.25})


def test_a_tracker_that_fails_stops_nothing_and_the_others_are_told(storage, monkeypatch):
    class Fails:
        id = where = "here"

        def __getattr__(self, name):
            raise ModuleNotFoundError("No module named 'boto3'")

    monkeypatch.setitem(TRACKERS, "wandb", lambda opening: Fails())
    with tracked_run("run", storage, {}, by=["wandb", "mlflow"]) as tracking:
        tracking.log_points([POINT])
    assert tracking.where.startswith("wandb    here (incomplete: ModuleNotFoundError: No module named 'boto3')\nmlflow ")
    assert runs_in(storage)["student/0"].data.metrics == {"train/loss": 2.0}


def test_without_trackers_nothing_is_logged_and_nothing_said(tmp_path):
    with tracked_run("run", tmp_path, {}, by=[]) as tracking:
        tracking.begin("student/0", {})
        tracking.log_points([POINT])
        tracking.log_ended(ended("student/0"))
    assert (tracking.where, tracking.ids, tracking.run_id("student/0")) == ("", {}, "")
    assert not list(tmp_path.iterdir())


WANDB = """
import sys
from pathlib import Path
from raw2s.tracking import Ended, tracked_run
from raw2s.tracking.tracker import Data

storage = Path(sys.argv[1])
page = storage / "report.html"
page.write_text("a page")
with tracked_run("demo", storage, {"task": {"n_test": 5}}, by=["wandb"], about={"commit": "abc"}) as tracking:
    tracking.log_data(Data(name="split", digest="0123456789abcdef", folder="artifacts/split/k", sizes={"teacher": 3}))
    tracking.begin("student/0", {})
    tracking.log_points([("student/0", {"step": 1, "loss": 2.25, "time": 1e12})])
    tracking.log_ended(Ended(name="student/0", key="abc", cached=True, settings={}, metrics={"final_loss": 1.5}))
    tracking.log_results({"pgr/0": 0.625}, [page])
    print(tracking.where, end="")
"""


def wandb_run(storage, **environment) -> subprocess.CompletedProcess[str]:
    """In a process of its own: wandb starts one that outlives the run."""
    if find_spec("wandb") is None:
        pytest.skip("wandb is not installed: pip install 'raw2s[wandb]'")
    without = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return subprocess.run(
        [sys.executable, "-c", WANDB, str(storage)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**without, "HOME": str(storage), **environment},
    )


def test_wandb_offline_holds_config_curves_and_scores(tmp_path):
    done = wandb_run(tmp_path, WANDB_MODE="offline", WANDB_API_KEY="f00d" * 10)
    assert done.returncode == 0, done.stderr
    (written,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert done.stdout == f"wandb    wandb sync {written.parent}\n" and not done.stderr
    content = written.read_bytes()
    for part in (b"student/0/loss", b"2.25", b"student/0/final_loss", b"n_test", b"0.625", b"0123456789abcdef", b"report.html"):
        assert part in content, part
    logs = "".join(file.read_text(errors="replace") for file in tmp_path.rglob("*") if file.is_file())
    assert "f00d" * 10 not in logs, "a key in a log"


def test_wandb_without_a_login_is_told_in_one_line(tmp_path):
    done = wandb_run(tmp_path, WANDB_MODE="online")
    assert done.returncode == 1
    assert "ConfigError: tracking: wandb does not start (No API key configured" in done.stderr.splitlines()[-1]
    assert "run wandb login, or set WANDB_MODE=offline" in done.stderr


def test_wandb_that_is_not_installed_is_a_mistake_before_anything_starts(monkeypatch):
    monkeypatch.setattr("raw2s.pipeline.preflight.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^tracking: the package wandb is not installed; run pip install wandb, or remove it$"):
        _check_packages(parse_config(tiny_run(Path("runs"), tracking=["mlflow", "wandb"])))
