"""MLflow: one parent run per pipeline run, one child per stage. `MLFLOW_TRACKING_URI` is honoured; the default is sqlite."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PARAM_LIMIT = 500
"""MLflow refuses longer parameter values."""


class Tracker:
    """Logs one pipeline run. Use `tracked_run`."""

    def __init__(self, client: Any, experiment_id: str, parent_id: str, uri: str) -> None:
        self.client, self.experiment_id, self.parent_id, self.uri = client, experiment_id, parent_id, uri
        self.stage_runs: dict[str, str] = {}

    @property
    def where(self) -> str:
        """How to look at the runs: the command for a local database, else the server's address, without a password in it."""
        if self.uri.startswith("sqlite:"):
            return f"mlflow ui --backend-store-uri {self.uri}"
        address = urlsplit(self.uri)
        return address._replace(netloc=address.netloc.rpartition("@")[2]).geturl()

    def log_points(self, points: list[tuple[str, dict[str, float]]]) -> None:
        """Points of training curves, (stage, figures with `step` and `time`), to the stages' child runs while they train."""
        from mlflow.entities import Metric  # noqa: PLC0415

        by_stage: dict[str, list[Any]] = {}
        for name, point in points:
            time, step = int(point["time"]), int(point["step"])
            by_stage.setdefault(name, []).extend(
                Metric(f"train/{key}", value, time, step) for key, value in point.items() if key not in ("step", "time")
            )
        for name, metrics in by_stage.items():
            self._log(self._stage_run(name), metrics, {})

    def log_stage(
        self, name: str, settings: dict[str, Any], metrics: dict[str, Any], *, key: str, cached: bool, failed: bool = False
    ) -> None:
        """End a stage's child run, with its settings and metrics."""
        from mlflow.entities import Metric  # noqa: PLC0415

        run_id = self._stage_run(name)
        points = [Metric(k, float(v), 0, 0) for k, v in metrics.items() if isinstance(v, (int, float))]
        self._log(run_id, points, flat(settings))
        for tag, value in {"raw2s.key": key, "raw2s.cached": str(cached).lower()}.items():
            self.client.set_tag(run_id, tag, value)
        self.client.set_terminated(run_id, status="FAILED" if failed else "FINISHED")

    def _stage_run(self, name: str) -> str:
        """The child run of a stage, made when it is first heard of."""
        if name not in self.stage_runs:
            tags = {"mlflow.parentRunId": self.parent_id}
            self.stage_runs[name] = self.client.create_run(self.experiment_id, run_name=name, tags=tags).info.run_id
        return self.stage_runs[name]

    def log_results(self, metrics: dict[str, float], files: list[Path]) -> None:
        """The run's scores, and its results as artifacts."""
        from mlflow.entities import Metric  # noqa: PLC0415

        self._log(self.parent_id, [Metric(k, v, 0, 0) for k, v in metrics.items()], {})
        for file in files:
            self.client.log_artifact(self.parent_id, str(file))

    def _log(self, run_id: str, metrics: list[Any], params: dict[str, str]) -> None:
        from mlflow.entities import Param  # noqa: PLC0415

        for start in range(0, max(len(metrics), 1), 1000):  # a batch holds at most 1,000 metrics and 100 parameters
            self.client.log_batch(run_id, metrics=metrics[start : start + 1000])
        items = list(params.items())
        for start in range(0, len(items), 100):
            self.client.log_batch(run_id, params=[Param(k, v) for k, v in items[start : start + 100]])


@contextmanager
def tracked_run(name: str, storage: Path, config: dict[str, Any], parent_id: str | None = None) -> Iterator[Tracker]:
    """Open the parent run `name` in experiment `raw2s`; a failure inside ends it as FAILED."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # no lines about the tables it makes
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    import mlflow  # two seconds; `--help` and a config mistake should not wait for it  # noqa: PLC0415
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    storage.mkdir(parents=True, exist_ok=True)
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{storage.resolve() / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("raw2s")
    if experiment is None:
        try:
            # Beside the database, not in the folder the command was started from.
            location = (storage.resolve() / "mlartifacts").as_uri() if uri.startswith("sqlite") else None
            experiment_id = client.create_experiment("raw2s", artifact_location=location)
        except MlflowException:  # another run made it in the meantime
            made = client.get_experiment_by_name("raw2s")
            assert made is not None
            experiment_id = made.experiment_id
    else:
        experiment_id = experiment.experiment_id
    tags = {"mlflow.parentRunId": parent_id} if parent_id else {}
    run_id = client.create_run(experiment_id, run_name=name, tags=tags).info.run_id
    tracker = Tracker(client, experiment_id, run_id, uri)
    tracker._log(run_id, [], flat(config))
    try:
        yield tracker
    except BaseException:
        for child in tracker.stage_runs.values():
            if client.get_run(child).info.status == "RUNNING":
                client.set_terminated(child, status="FAILED")
        client.set_terminated(run_id, status="FAILED")
        raise
    client.set_terminated(run_id)


def flat(tree: Any, prefix: str = "") -> dict[str, str]:
    """`{"task": {"n_test": 5}}` -> `{"task.n_test": "5"}`, values cut to what MLflow takes."""
    if isinstance(tree, dict) or (isinstance(tree, list) and tree and isinstance(tree[0], dict)):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {k: v for key, value in items for k, v in flat(value, f"{prefix}{key}.").items()}
    return {prefix.rstrip("."): str(tree)[:PARAM_LIMIT]}
