"""Weights & Biases: one run per pipeline run, the stages' curves and figures in it by the stages' names. An extra.

Its own environment variables are honoured: WANDB_MODE=offline writes a folder for `wandb sync`, WANDB_PROJECT and WANDB_ENTITY name
another place. What it asks of its servers goes to its own log files, and no key or address of a store is in what it is told.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raw2s.errors import ConfigError
from raw2s.tracking.tracker import Data, Ended, Opening, Point, Status

EXIT = {"FINISHED": 0, "FAILED": 1, "KILLED": 130}
"""Of the process, as wandb understands how a run ended."""
BESIDE = "wandb"
"""The folder that wandb makes in the storage."""


class WandbTracker:
    """Logs one run. Use `raw2s.tracking.tracked_run`."""

    def __init__(self, run: Any) -> None:
        self.run = run
        self.known: set[str] = set()

    @property
    def id(self) -> str:
        return str(self.run.id)

    @property
    def where(self) -> str:
        return f"wandb sync {Path(self.run.dir).parent}" if self.run.offline else str(self.run.url)

    def begin(self, name: str, settings: Mapping[str, Any]) -> None:
        """Its curves have its own steps."""
        if name not in self.known:
            self.known.add(name)
            self.run.define_metric(f"{name}/*", step_metric=f"{name}/step")

    def log_points(self, points: Sequence[tuple[str, Point]]) -> None:
        for name, point in points:
            self.begin(name, {})
            self.run.log({f"{name}/{key}": value for key, value in point.items() if key != "time"})

    def log_ended(self, ended: Ended) -> None:
        """Figures of the run's summary."""
        figures = {key: value for key, value in ended.metrics.items() if isinstance(value, (int, float))}
        said = {"key": ended.key, "cached": ended.cached, "status": ended.status, **ended.links}
        self.run.summary.update({f"{ended.name}/{key}": value for key, value in {**figures, **said}.items()})

    def log_data(self, data: Data) -> None:
        self.run.config.update({"data": {**dict(self.run.config).get("data", {}), data.name: {"digest": data.digest, **data.sizes}}},
                               allow_val_change=True)  # fmt: skip

    def tag(self, name: str, key: str, value: str) -> None:
        self.run.summary[f"{name}/{key}"] = value

    def log_results(self, metrics: Mapping[str, float], files: Sequence[Path], folder: str | None = None) -> None:
        import wandb  # noqa: PLC0415

        self.run.summary.update(dict(metrics))
        if files:
            results = wandb.Artifact(f"{self.run.name}-{folder}" if folder else str(self.run.name), type="results")
            for file in files:
                results.add_file(str(file))
            self.run.log_artifact(results)

    def run_id(self, name: str) -> str:
        return ""

    def end_killed(self, run_id: str) -> None:
        """Its server says of a run that it hears no more from that it crashed."""

    def drop(self) -> None:
        """There is no way to take a local one back."""
        self.end("FAILED")

    def end(self, status: Status) -> None:
        self.run.finish(exit_code=EXIT[status])


def opened(opening: Opening) -> WandbTracker:
    """A new run in project `raw2s`. Raises ConfigError where wandb refuses it."""
    import wandb  # seconds, and an extra  # noqa: PLC0415

    folder = opening.storage.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    settings = wandb.Settings(
        silent=True,
        console="off",  # the bars are no log
        x_disable_stats=True,  # of this process, which does not compute
        init_timeout=60,
    )
    try:
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "raw2s"),
            name=opening.name,
            dir=folder,
            config={**opening.config, "about": dict(opening.about)},
            settings=settings,
            reinit="create_new",  # whatever else this process logs stays its own
        )
    except wandb.errors.Error as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"tracking: wandb does not start ({reason}); run wandb login, or set WANDB_MODE=offline") from None
    return WandbTracker(run)
