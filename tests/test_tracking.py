import socket

import mlflow
import pytest

from raw2s.errors import ConfigError
from raw2s.tracking import Tracker, tracked_run


@pytest.fixture
def nobody(monkeypatch) -> str:
    """An address at which nothing answers; it has a password in it."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return f"http://me:secret@127.0.0.1:{closed.getsockname()[1]}"


def test_a_stages_curve_is_there_while_it_trains(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with tracked_run("run", tmp_path, {"seed": 1}) as tracker:
        tracker.log_points([("student/0", {"step": 1, "loss": 2.0, "tokens_per_second": 90.0, "time": 1e12})])
        tracker.log_points(
            [("student/0", {"step": 2, "loss": 1.5, "time": 1e12 + 500}), ("ceiling", {"step": 1, "loss": 3.0, "time": 1e12})]
        )
        client = mlflow.MlflowClient(tracking_uri=tracker.uri)
        runs = {run.info.run_name: run for run in client.search_runs([tracker.experiment_id])}
        assert runs["student/0"].info.status == "RUNNING"
        assert runs["student/0"].data.tags["mlflow.parentRunId"] == runs["run"].info.run_id
        history = client.get_metric_history(runs["student/0"].info.run_id, "train/loss")
        assert [(point.step, point.value) for point in history] == [(1, 2.0), (2, 1.5)]
        tracker.log_stage("student/0", {"gamma": 0.1}, {"final_loss": 1.5}, key="abc", cached=False)
        tracker.log_stage("trial-1", {}, {}, key="trial-1", cached=False, status="FAILED")
    runs = {run.info.run_name: run for run in client.search_runs([tracker.experiment_id])}
    assert runs["student/0"].info.status == "FINISHED"
    assert runs["student/0"].data.params == {"gamma": "0.1"}
    assert runs["trial-1"].info.status == "FAILED"
    assert len(runs) == 4


def test_what_a_killed_process_left_running_is_ended_as_killed(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    killed = tracked_run("sweep", tmp_path, {})
    before = killed.__enter__()  # and never left
    before.log_settings("trial-1", {"gamma": 0.1})
    before.log_stage("trial-2", {}, {}, key="trial-2", cached=False)
    with tracked_run("sweep", tmp_path, {}) as tracker:
        for name in ("trial-1", "trial-2"):
            tracker.end_killed(before.stage_runs[name])
        tracker.end_killed("f" * 32)  # of a database that was deleted
        assert not tracker.lost
        status = {name: tracker.client.get_run(run_id).info.status for name, run_id in before.stage_runs.items()}
        assert status == {"trial-1": "KILLED", "trial-2": "FINISHED"}
        assert tracker.client.get_run(before.parent_id).info.status == "KILLED"


@pytest.mark.parametrize(
    ("uri", "where"),
    [
        ("sqlite:////runs/mlflow.db", "mlflow ui --backend-store-uri sqlite:////runs/mlflow.db"),
        ("https://me:secret@mlflow.example:5000/team", "https://mlflow.example:5000/team"),
        ("postgresql://me:se@cret@db/mlflow", "postgresql://db/mlflow"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
    ],
)
def test_where_to_look_holds_no_password(uri, where):
    assert Tracker(None, "1", "parent", uri).where == where


def test_a_server_that_is_not_there_is_told_in_one_line_without_its_password(tmp_path, monkeypatch, nobody):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody)
    with (
        pytest.raises(ConfigError, match=r"^MLFLOW_TRACKING_URI: no MLflow at http://127.*; start it") as told,
        tracked_run("run", tmp_path, {}),
    ):
        pass
    assert "secret" not in str(told.value) and "\n" not in str(told.value)


def test_a_server_that_is_lost_on_the_way_stops_nothing(tmp_path, monkeypatch, nobody):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with tracked_run("run", tmp_path, {}) as tracker:
        assert "incomplete" not in tracker.where
        tracker.client = mlflow.MlflowClient(nobody)
        tracker.log_points([("student/0", {"step": 1, "loss": 2.0, "time": 1e12})])
        tracker.log_stage("student/0", {}, {}, key="abc", cached=False)
        assert "it stopped answering" in tracker.where
