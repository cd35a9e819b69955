"""MLflow: one parent run per pipeline run, one child per stage. `MLFLOW_TRACKING_URI` is honoured; the default is sqlite."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal
from urllib.parse import urlsplit

from raw2s.errors import ConfigError
from raw2s.storage import Place
from raw2s.storage.copies import local

Status = Literal["FINISHED", "FAILED", "KILLED"]
PARAM_LIMIT = 500
"""MLflow refuses longer parameter values."""
SERVER_SECONDS = 5.0
"""For a server to answer at all before anything starts."""


def _unless_lost(log: Callable[..., None]) -> Callable[..., None]:
    """An MLflow that stops answering costs the run no more than its figures there, which lie in the artifacts too."""

    @wraps(log)
    def guarded(self: "Tracker", *args: Any, **kwargs: Any) -> None:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        if not self.lost:
            try:
                log(self, *args, **kwargs)
            except MlflowException:
                self.lost = True  # it is not asked again: every try takes its time

    return guarded


class Tracker:
    """Logs one pipeline run. Use `tracked_run`."""

    def __init__(self, client: Any, experiment_id: str, parent_id: str, uri: str) -> None:
        self.client, self.experiment_id, self.parent_id, self.uri = client, experiment_id, parent_id, uri
        self.stage_runs: dict[str, str] = {}
        self.lost = False

    @property
    def where(self) -> str:
        """How to look at the runs: the command for a local database, else the server's address; and if it was lost on the way."""
        local = self.uri.startswith("sqlite:")
        where = f"mlflow ui --backend-store-uri {self.uri}" if local else _without_password(self.uri)
        return f"{where} (it stopped answering: what is there is incomplete)" if self.lost else where

    @_unless_lost
    def log_config(self, config: dict[str, Any]) -> None:
        """The run's settings, as parameters of the parent run."""
        self._log(self.parent_id, [], flat(config))

    @_unless_lost
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

    @_unless_lost
    def log_settings(self, name: str, settings: dict[str, Any]) -> None:
        """Begin a child run, whose figures follow."""
        self._log(self._stage_run(name), [], flat(settings))

    @_unless_lost
    def log_stage(
        self, name: str, settings: dict[str, Any], metrics: dict[str, Any], *, key: str, cached: bool, status: Status = "FINISHED"
    ) -> None:
        """End a stage's child run, with its settings and metrics."""
        from mlflow.entities import Metric  # noqa: PLC0415

        run_id = self._stage_run(name)
        points = [Metric(k, float(v), 0, 0) for k, v in metrics.items() if isinstance(v, (int, float))]
        self._log(run_id, points, flat(settings))
        for tag, value in {"raw2s.key": key, "raw2s.cached": str(cached).lower()}.items():
            self.client.set_tag(run_id, tag, value)
        self.client.set_terminated(run_id, status=status)

    @_unless_lost
    def tag(self, name: str, key: str, value: str) -> None:
        """Say something of a child run that is no figure."""
        self.client.set_tag(self._stage_run(name), f"raw2s.{key}", value)

    def end_killed(self, run_id: str) -> None:
        """End a child run that an earlier process left running, and its parent, where this MLflow still has them."""
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        with suppress(MlflowException):
            for left in (run_id, self.client.get_run(run_id).data.tags["mlflow.parentRunId"]):
                if self.client.get_run(left).info.status == "RUNNING":
                    self.client.set_terminated(left, status="KILLED")

    def _stage_run(self, name: str) -> str:
        """The child run of a stage, made when it is first heard of."""
        if name not in self.stage_runs:
            tags = {"mlflow.parentRunId": self.parent_id}
            self.stage_runs[name] = self.client.create_run(self.experiment_id, run_name=name, tags=tags).info.run_id
        return self.stage_runs[name]

    @_unless_lost
    def log_results(self, metrics: dict[str, float], files: list[Path], folder: str | None = None) -> None:
        """The run's scores, and its results as artifacts, in a folder of theirs where one is named."""
        from mlflow.entities import Metric  # noqa: PLC0415

        self._log(self.parent_id, [Metric(k, v, 0, 0) for k, v in metrics.items()], {})
        for file in files:
            self.client.log_artifact(self.parent_id, str(file), folder)

    @_unless_lost
    def end(self, status: Literal["FINISHED", "FAILED"]) -> None:
        """End the parent run and, where it failed, the stages that it left unfinished."""
        for child in self.stage_runs.values() if status == "FAILED" else []:
            if self.client.get_run(child).info.status == "RUNNING":
                self.client.set_terminated(child, status=status)
        self.client.set_terminated(self.parent_id, status=status)

    def _log(self, run_id: str, metrics: list[Any], params: dict[str, str]) -> None:
        from mlflow.entities import Param  # noqa: PLC0415

        for start in range(0, max(len(metrics), 1), 1000):  # a batch holds at most 1,000 metrics and 100 parameters
            self.client.log_batch(run_id, metrics=metrics[start : start + 1000])
        items = list(params.items())
        for start in range(0, len(items), 100):
            self.client.log_batch(run_id, params=[Param(k, v) for k, v in items[start : start + 100]])


@contextmanager
def tracked_run(name: str, storage: Place, config: dict[str, Any]) -> Iterator[Tracker]:
    """Open the parent run `name` in experiment `raw2s`; a failure inside ends it as FAILED.

    Raises ConfigError where MLFLOW_TRACKING_URI names a store that does not answer.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # no lines about the tables it makes
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # 14 seconds; its own seven are four minutes
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # a line a retry
    import requests  # noqa: PLC0415
    from mlflow.exceptions import MlflowException  # two seconds; `--help` and a config mistake should not wait  # noqa: PLC0415

    folder = local(storage)  # a database lies on a disk: of a URI, with this machine's copies
    folder.mkdir(parents=True, exist_ok=True)
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
    try:
        _require_server(uri)
        tracker = _opened(uri, name, folder)
    except (MlflowException, requests.RequestException) as error:
        reason = shorten(str(error).replace(uri, _without_password(uri)), 160, placeholder=" ...")
        raise ConfigError(
            f"MLFLOW_TRACKING_URI: no MLflow at {_without_password(uri)} ({reason}); start it, correct the address, or unset it"
        ) from None
    tracker.log_config(config)
    try:
        yield tracker
    except BaseException:
        tracker.end("FAILED")
        raise
    tracker.end("FINISHED")


def _require_server(uri: str) -> None:
    """Raise RequestException where a server does not answer: asked once, for MLflow's client asks for the better part of a minute."""
    import requests  # noqa: PLC0415

    if uri.startswith(("http://", "https://")):
        requests.get(uri, timeout=SERVER_SECONDS)


def _opened(uri: str, name: str, storage: Path) -> Tracker:
    """A new run called `name` in the experiment, which is made if it is not there. Raises MlflowException."""
    import mlflow  # noqa: PLC0415

    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("raw2s")
    if experiment is None:
        # Beside the database, not in the folder the command was started from.
        location = (storage.resolve() / "mlartifacts").as_uri() if uri.startswith("sqlite") else None
        try:
            client.create_experiment("raw2s", artifact_location=location)
        except mlflow.exceptions.MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # which says that another run made it in the meantime
                raise
        experiment = client.get_experiment_by_name("raw2s")
        assert experiment is not None
    run = client.create_run(experiment.experiment_id, run_name=name)
    return Tracker(client, experiment.experiment_id, run.info.run_id, uri)


def _without_password(uri: str) -> str:
    address = urlsplit(uri)
    return address._replace(netloc=address.netloc.rpartition("@")[2]).geturl()


def flat(tree: Any, prefix: str = "") -> dict[str, str]:
    """`{"task": {"n_test": 5}}` -> `{"task.n_test": "5"}`, values cut to what MLflow takes."""
    if isinstance(tree, dict) or (isinstance(tree, list) and tree and isinstance(tree[0], dict)):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {k: v for key, value in items for k, v in flat(value, f"{prefix}{key}.").items()}
    return {prefix.rstrip("."): str(tree)[:PARAM_LIMIT]}
