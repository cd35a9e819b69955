"""What is heard of trials while they run: a line each in the terminal, a run each in MLflow, and the file they outlive us in."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayTaskError
from rich.console import Console

from raw2s.causes import cause
from raw2s.errors import ConfigError, StageFailed
from raw2s.pipeline.progress import brief
from raw2s.tracking import Ended, Status, Tracking
from raw2s.tuning.judged import JUDGED, JUDGED_SE
from raw2s.tuning.searched import Sweep
from raw2s.tuning.trials import Trial, append_trial, new_trial, objectives_of


def line_of(trial: Trial) -> str:
    """`1-naive trial 3: finished, epoch 3, devel_score 0.71; weights.loss [0.2, 0.8]`."""
    reached = "" if trial.figure is None else f", epoch {trial.epoch}, {brief({JUDGED: trial.figure})}"
    reason = f", {trial.reason}" if trial.reason else ""
    name = f"{trial.part} trial {trial.number}".lstrip()
    return f"{name}: {trial.status}{reached}{reason}; {', '.join(f'{k} {v}' for k, v in trial.values.items())}"


def reason_of(error: BaseException | None) -> str:
    """Why a trial failed, in one line, out of what Tune and Ray put around it."""
    seen = error
    while seen is not None:
        if isinstance(seen, (StageFailed, ConfigError)) and not isinstance(seen, RayTaskError):  # which poses as what it wraps
            return str(seen)
        seen = getattr(seen, "cause", None) or seen.__cause__
    return "its process ended" if error is None else cause(error)


def error_of(trial: Any) -> BaseException | None:
    """What a trial of Tune raised, from the file on this machine: Tune's own method reads the storage, where it is not yet."""
    file = trial.pickled_error_file
    if file is None or not Path(file).is_file():
        return None
    error: BaseException = ray.cloudpickle.loads(Path(file).read_bytes())
    return error


def log_ended(tracking: Tracking, trial: Trial, *, cached: bool) -> None:
    """End a trial's run in MLflow."""
    figures = {JUDGED: trial.figure, JUDGED_SE: trial.standard_error, "epoch": trial.epoch}
    metrics = {name: value for name, value in figures.items() if trial.figure is not None and value is not None}
    status: Status = "FAILED" if trial.status == "failed" else "FINISHED"
    tracking.log_ended(
        Ended(name=trial.name, key=trial.name, cached=cached, settings=trial.values, metrics=metrics, status=status)
    )
    tracking.tag(trial.name, "status", trial.status)
    if trial.reason:
        tracking.tag(trial.name, "reason", trial.reason)


class TrialLog(tune.Callback):
    """Tune's callback: keeps `trials` up to date, by Tune's own ids, and says so."""

    def __init__(self, sweep: Sweep, folder: Path, tracking: Tracking, console: Console, first: int) -> None:
        self.sweep, self.folder, self.tracking, self.console, self.next = sweep, folder, tracking, console, first
        self.trials: dict[str, Trial] = {}
        self.counts: dict[str, dict[str, int]] = {}
        """Of every trial how many of its stages were found and made."""

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks for a later restore, which a sweep does without."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        started = new_trial(self.sweep, self.next, {name: float(at) for name, at in trial.config.items()})
        self.next += 1
        self.tracking.begin(started.name, started.values)
        self._heard(trial.trial_id, started, run_id=self.tracking.run_id(started.name))
        append_trial(self.folder, self.trials[trial.trial_id])

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        self.counts[trial.trial_id] = {"found": result["found"], "made": result["made"]}
        figures = {"figure": result[JUDGED], "standard_error": result[JUDGED_SE], "epoch": result["epoch"]}
        further = objectives_of(self.sweep.settings, result)
        self._heard(trial.trial_id, self.trials[trial.trial_id], objectives=further, **figures)
        shown = {name: float(value) for name, value in result.items() if name.startswith((JUDGED, "validation_"))}
        point = {"step": float(result["epoch"]), "time": time.time() * 1000, **shown}
        self.tracking.log_points([(self.trials[trial.trial_id].name, point)])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._ended(trial.trial_id, status="finished" if trial.last_result.get("finished") else "stopped")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._ended(trial.trial_id, status="failed", reason=reason_of(error_of(trial)))

    def _ended(self, trial_id: str, **changes: Any) -> None:
        self._heard(trial_id, self.trials[trial_id], **changes)
        ended = self.trials[trial_id]
        append_trial(self.folder, ended)
        log_ended(self.tracking, ended, cached=False)
        self.console.print(line_of(ended), markup=False, highlight=False, soft_wrap=True)

    def _heard(self, trial_id: str, trial: Trial, **changes: Any) -> None:
        self.trials[trial_id] = replace(trial, **changes)
