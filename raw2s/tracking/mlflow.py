"""MLflow: one parent run per pipeline run, one child per stage. `MLFLOW_TRACKING_URI` is honoured; the default is sqlite."""

import getpass
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from textwrap import shorten
from typing import Any
from urllib.parse import urlsplit

from raw2s.errors import ConfigError
from raw2s.tracking.flat import flat
from raw2s.tracking.tracker import Data, Ended, Opening, Point, Status

SERVER_SECONDS = 5.0
"""For a server to answer at all before anything starts."""
BESIDE = "mlartifacts"
"""The folder beside a local database for what runs leave in MLflow."""
PROXIED = "mlflow-artifacts:/"
"""Artifacts whose place the server that shows them knows: so the database names no folder, and may be moved with its files."""


def _unless_lost(log: Callable[..., None]) -> Callable[..., None]:
    """An MLflow that stops answering costs the run no more than its figures there, which lie in the artifacts too."""

    @wraps(log)
    def guarded(self: "MlflowTracker", *args: Any, **kwargs: Any) -> None:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        if not self.lost:
            try:
                log(self, *args, **kwargs)
            except MlflowException:
                self.lost = True  # it is not asked again: every try takes its time

    return guarded


class MlflowTracker:
    """Logs one run. Use `raw2s.tracking.tracked_run`."""

    def __init__(self, client: Any, experiment_id: str, parent_id: str, uri: str) -> None:
        self.client, self.experiment_id, self.parent_id, self.uri = client, experiment_id, parent_id, uri
        self.stage_runs: dict[str, str] = {}
        self.lost = False

    @property
    def id(self) -> str:
        return self.parent_id

    @property
    def where(self) -> str:
        """The command for a local database, else the server's address; and if it was lost on the way."""
        where = _without_password(self.uri)
        if self.uri.startswith("sqlite:"):
            where = f"mlflow ui --backend-store-uri {self.uri} --artifacts-destination {beside(self.uri)}"
        return f"{where} (it stopped answering: what is there is incomplete)" if self.lost else where

    @_unless_lost
    def begin(self, name: str, settings: Mapping[str, Any]) -> None:
        self._log(self._stage_run(name), params=flat(settings))

    @_unless_lost
    def log_points(self, points: Sequence[tuple[str, Point]]) -> None:
        """To the stages' child runs."""
        from mlflow.entities import Metric  # noqa: PLC0415

        by_stage: dict[str, list[Any]] = {}
        for name, point in points:
            time, step = int(point["time"]), int(point["step"])
            by_stage.setdefault(name, []).extend(
                Metric(f"train/{key}", value, time, step) for key, value in point.items() if key not in ("step", "time")
            )
        for name, metrics in by_stage.items():
            self._log(self._stage_run(name), metrics)

    @_unless_lost
    def log_ended(self, ended: Ended) -> None:
        """A found one starts and ends now, and names the run that made it."""
        from mlflow.entities import Metric  # noqa: PLC0415

        tags = {"raw2s.key": ended.key, "raw2s.cached": str(ended.cached).lower()}
        tags |= {f"raw2s.{name}": value for name, value in ended.links.items()}
        if ended.cached and (maker := self._maker(ended.key)):
            link = f"[the run that made it](#/experiments/{self.experiment_id}/runs/{maker})"
            tags |= {"raw2s.made_by": maker, "mlflow.note.content": f"Found, not made: see {link}."}
        points = [Metric(k, float(v), 0, 0) for k, v in ended.metrics.items() if isinstance(v, (int, float))]
        run_id = self._stage_run(ended.name)
        self._log(run_id, points, flat(ended.settings), tags)
        self.client.set_terminated(run_id, status=ended.status)

    def _maker(self, key: str) -> str | None:
        """The latest run of a stage with this key that made it rather than found it."""
        asked = f"tags.`raw2s.key` = '{key}' and tags.`raw2s.cached` = 'false' and attributes.status = 'FINISHED'"
        found = self.client.search_runs([self.experiment_id], filter_string=asked, max_results=1)
        return found[0].info.run_id if found else None

    @_unless_lost
    def log_data(self, data: Data) -> None:
        """A data set a part, as those of `mlflow.data` are."""
        from mlflow.entities import Dataset, DatasetInput, InputTag  # noqa: PLC0415

        source = json.dumps({"uri": data.folder})
        parts = [
            DatasetInput(
                Dataset(f"{data.name} {part}", data.digest, "local", source, profile=json.dumps({"num_rows": rows})),
                [InputTag("mlflow.data.context", part)],
            )
            for part, rows in data.sizes.items()
        ]
        self.client.log_inputs(self.parent_id, datasets=parts)

    @_unless_lost
    def tag(self, name: str, key: str, value: str) -> None:
        self.client.set_tag(self._stage_run(name), f"raw2s.{key}", value)

    def run_id(self, name: str) -> str:
        return self.stage_runs.get(name, "")

    def end_killed(self, run_id: str) -> None:
        """The child runs, and their parent, where this MLflow still has them."""
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        with suppress(MlflowException):
            parent = self.client.get_run(run_id).data.tags.get("mlflow.parentRunId", run_id)
            self._end_running(parent, "KILLED")
            if self.client.get_run(parent).info.status == "RUNNING":
                self.client.set_terminated(parent, status="KILLED")

    def _end_running(self, parent: str, status: Status) -> None:
        """End a run's children that run."""
        asked = f"tags.`mlflow.parentRunId` = '{parent}' and attributes.status = 'RUNNING'"
        for child in self.client.search_runs([self.experiment_id], filter_string=asked):
            self.client.set_terminated(child.info.run_id, status=status)

    def _stage_run(self, name: str) -> str:
        """The child run of a stage, made when it is first heard of."""
        if name not in self.stage_runs:
            tags = {"mlflow.parentRunId": self.parent_id}
            self.stage_runs[name] = self.client.create_run(self.experiment_id, run_name=name, tags=tags).info.run_id
        return self.stage_runs[name]

    @_unless_lost
    def log_results(self, metrics: Mapping[str, float], files: Sequence[Path], folder: str | None = None) -> None:
        from mlflow.entities import Metric  # noqa: PLC0415

        self._log(self.parent_id, [Metric(k, v, 0, 0) for k, v in metrics.items()])
        for file in files:
            _store(self.client, self.parent_id, self.uri, file, folder or "")

    @_unless_lost
    def drop(self) -> None:
        """Those of stages that were found too."""
        for run_id in (*self.stage_runs.values(), self.parent_id):
            self.client.delete_run(run_id)

    @_unless_lost
    def end(self, status: Status) -> None:
        if status != "FINISHED":
            self._end_running(self.parent_id, status)
        self.client.set_terminated(self.parent_id, status=status)

    def _log(
        self,
        run_id: str,
        metrics: Sequence[Any] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """In as few batches as can be: one holds at most 1,000 metrics and 100 parameters."""
        from mlflow.entities import Param, RunTag  # noqa: PLC0415

        own = [Param(k, v) for k, v in (params or {}).items()]
        said = [RunTag(k, v) for k, v in (tags or {}).items()]
        for batch in range(max(-(-len(metrics) // 1000), -(-len(own) // 100), 1)):
            self.client.log_batch(
                run_id,
                metrics=metrics[1000 * batch : 1000 * (batch + 1)],
                params=own[100 * batch : 100 * (batch + 1)],
                tags=said if batch == 0 else (),
            )


def opened(opening: Opening) -> MlflowTracker:
    """A new run in experiment `raw2s`. Raises ConfigError where MLFLOW_TRACKING_URI names a store that does not answer."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # no lines about the tables it makes
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # 14 seconds; its own seven are four minutes
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db").setLevel(logging.CRITICAL)  # a traceback for a disk that is full
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # a line a retry
    import requests  # noqa: PLC0415
    from mlflow.exceptions import MlflowException  # two seconds; `--help` and a config mistake should not wait  # noqa: PLC0415

    opening.storage.mkdir(parents=True, exist_ok=True)
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{opening.storage.resolve() / 'mlflow.db'}"
    try:
        _require_server(uri)
        tracker = _new_run(uri, opening)
    except (MlflowException, requests.RequestException) as error:
        reason = shorten(str(error).replace(uri, _without_password(uri)), 160, placeholder=" ...")
        raise ConfigError(
            f"MLFLOW_TRACKING_URI: no MLflow at {_without_password(uri)} ({reason}); start it, correct the address, or unset it"
        ) from None
    return tracker


def beside(uri: str) -> Path:
    """The folder of a local database's artifacts."""
    return Path(urlsplit(uri).path.removeprefix("/")).parent / BESIDE


def _require_server(uri: str) -> None:
    """Raise RequestException where a server does not answer: asked once, for MLflow's client asks for the better part of a minute."""
    import requests  # noqa: PLC0415

    if uri.startswith(("http://", "https://")):
        requests.get(uri, timeout=SERVER_SECONDS)


def _new_run(uri: str, opening: Opening) -> MlflowTracker:
    """In the experiment, which is made if it is not there. Raises MlflowException."""
    import mlflow  # noqa: PLC0415

    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("raw2s")
    if experiment is None:
        location = f"{PROXIED}raw2s" if uri.startswith("sqlite:") else None
        kind = {"mlflow.experimentKind": "custom_model_development"}  # else its pages open on evaluations of prompts
        try:
            client.create_experiment("raw2s", artifact_location=location, tags=kind)
        except mlflow.exceptions.MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # which says that another run made it in the meantime
                raise
        experiment = client.get_experiment_by_name("raw2s")
        assert experiment is not None
    run = client.create_run(experiment.experiment_id, run_name=opening.name, tags=_tags(opening.about))
    tracker = MlflowTracker(client, experiment.experiment_id, run.info.run_id, uri)
    tracker._log(run.info.run_id, params=flat(opening.config))
    return tracker


def _tags(about: Mapping[str, str]) -> dict[str, str]:
    """What made the run, under MLflow's own names where it has them."""
    commit, _, changed = about.get("commit", "").partition(", ")
    tags = {f"raw2s.{name}": value for name, value in about.items() if name not in ("command", "commit")}
    tags |= {"mlflow.source.name": about.get("command", "")}
    tags |= {"mlflow.source.git.commit": commit, "mlflow.source.git.dirty": str(bool(changed)).lower()} if commit else {}
    with suppress(OSError, KeyError):  # a user without a name, as in some containers
        tags["mlflow.user"] = getpass.getuser()
    return tags


def _store(client: Any, run_id: str, uri: str, file: Path, folder: str) -> None:
    """Keep a file as the run's artifact; of a local database by hand, for its proxied place asks for a server."""
    place = client.get_run(run_id).info.artifact_uri
    if not (uri.startswith("sqlite:") and place.startswith(PROXIED)):
        client.log_artifact(run_id, str(file), folder or None)
        return
    kept = beside(uri) / place.removeprefix(PROXIED) / folder
    kept.mkdir(parents=True, exist_ok=True)
    shutil.copy2(file, kept)


def _without_password(uri: str) -> str:
    address = urlsplit(uri)
    return address._replace(netloc=address.netloc.rpartition("@")[2]).geturl()
