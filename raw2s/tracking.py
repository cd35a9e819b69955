"""MLflow: one parent run per pipeline run, one child per stage. `MLFLOW_TRACKING_URI` is honoured; the default is sqlite."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARAM_LIMIT = 500
"""MLflow refuses longer parameter values."""


class Tracker:
    """Logs one pipeline run. Use `tracked_run`."""

    def __init__(self, client: Any, experiment_id: str, parent_id: str, uri: str) -> None:
        self.client, self.experiment_id, self.parent_id, self.uri = client, experiment_id, parent_id, uri

    def log_stage(
        self, name: str, settings: dict[str, Any], metrics: dict[str, Any], *, key: str, cached: bool, history: Path | None = None
    ) -> None:
        """A finished child run: the stage's settings, its metrics and, when it trained, its curve."""
        from mlflow.entities import Metric  # noqa: PLC0415

        tags = {"mlflow.parentRunId": self.parent_id, "raw2s.key": key, "raw2s.cached": str(cached).lower()}
        run_id = self.client.create_run(self.experiment_id, run_name=name, tags=tags).info.run_id
        points = [Metric(k, float(v), 0, 0) for k, v in metrics.items() if isinstance(v, (int, float))]
        if history is not None and history.is_file():
            for line in history.read_text().splitlines():
                point = json.loads(line)
                points += [Metric(f"train/{k}", v, 0, int(point["step"])) for k, v in point.items() if k != "step"]
        self._log(run_id, points, flat(settings))
        self.client.set_terminated(run_id)

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
        client.set_terminated(run_id, status="FAILED")
        raise
    client.set_terminated(run_id)


def flat(tree: Any, prefix: str = "") -> dict[str, str]:
    """`{"task": {"n_test": 5}}` -> `{"task.n_test": "5"}`, values cut to what MLflow takes."""
    if isinstance(tree, dict) or (isinstance(tree, list) and tree and isinstance(tree[0], dict)):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {k: v for key, value in items for k, v in flat(value, f"{prefix}{key}.").items()}
    return {prefix.rstrip("."): str(tree)[:PARAM_LIMIT]}
