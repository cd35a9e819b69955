import mlflow
import pytest

from raw2s.tracking import Tracker, tracked_run


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
        tracker.log_stage("trial-1", {}, {}, key="trial-1", cached=False, failed=True)
    runs = {run.info.run_name: run for run in client.search_runs([tracker.experiment_id])}
    assert runs["student/0"].info.status == "FINISHED"
    assert runs["student/0"].data.params == {"gamma": "0.1"}
    assert runs["trial-1"].info.status == "FAILED"
    assert len(runs) == 4


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
