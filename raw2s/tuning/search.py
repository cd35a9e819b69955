"""Ray Tune as a sweep uses it: which points are tried, which trials end early, and the run around them."""

import logging
import os
from pathlib import Path
from typing import Any

import optuna
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from raw2s.config import OBJECTIVES, SweepConfig
from raw2s.tuning.judged import JUDGED
from raw2s.tuning.optuna_space import distributions_of
from raw2s.tuning.resources import DRIVER_CPU
from raw2s.tuning.searched import Sweep
from raw2s.tuning.space import Point, drawn_points, grid_points
from raw2s.tuning.trials import Trial, on_objectives

QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the newer output prints what it starts with at any verbosity
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # tracebacks; a failed trial's line has its reason
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # three files a trial of what MLflow and trials.jsonl have
}
"""Tune's own noise, off where the user has not set it."""
STUDY = "sweep"
"""What Optuna calls it."""
REDUCTION = 2
"""Of the trials that reach a rung of ASHA, one in so many goes on."""


def points_ahead(sweep: Sweep, known: list[Trial]) -> list[Point]:
    """The points that are known before any trial ends and are still to be tried.

    All of a grid and of random search; of TPE those that were cut off or failed in an earlier start.
    """
    settings = sweep.settings
    over = [trial.point for trial in known if trial.counts]
    if settings.search == "tpe":
        again: list[Point] = []
        for trial in known:
            if trial.point not in (*over, *again):
                again.append(trial.point)
        return again[: max(0, settings.trials - len(over))]
    grid = settings.search == "grid"
    points = grid_points(sweep.knobs) if grid else drawn_points(sweep.knobs, settings.trials, settings.seed)
    return [point for point in points if point not in over]


def trials_left(sweep: Sweep, known: list[Trial]) -> int:
    """How many trials are to be run."""
    if sweep.settings.search == "tpe":
        return max(0, sweep.settings.trials - sum(trial.counts for trial in known))
    return len(points_ahead(sweep, known))


def search_of(sweep: Sweep, known: list[Trial]) -> OptunaSearch:
    """What proposes points: the known ones ahead, then TPE's, which is told of the trials of earlier starts."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    over = [trial for trial in known if trial.counts]
    seed = sweep.settings.seed + len(over)  # the same seed would propose again what an earlier start has tried
    settings, storage, space = sweep.settings, optuna.storages.InMemoryStorage(), distributions_of(sweep.knobs)
    metrics: list[str] = list(settings.objectives)
    modes: list[str] = [OBJECTIVES[name] for name in settings.objectives]
    directions: list[Any] = [f"{mode}imize" for mode in modes]
    study = optuna.create_study(storage=storage, study_name=STUDY, directions=directions)
    for trial in over:
        values = on_objectives(settings, trial)
        study.add_trial(optuna.trial.create_trial(params=dict(trial.point), distributions=space, values=values))
    several = len(metrics) > 1
    return OptunaSearch(
        space=space,
        metric=metrics if several else metrics[0],
        mode=modes if several else modes[0],
        storage=storage,
        study_name=STUDY,
        points_to_evaluate=[dict(point) for point in points_ahead(sweep, known)],
        sampler=optuna.samplers.TPESampler(seed=seed) if settings.search == "tpe" else optuna.samplers.RandomSampler(seed),
    )


def scheduler_of(settings: SweepConfig, epochs: int) -> TrialScheduler:
    """Which trials are stopped, judged at the same epoch; the last epoch is reported by finished trials only."""
    grace = min(settings.grace_epochs, epochs)
    if settings.scheduler == "asha":
        return ASHAScheduler(time_attr="epoch", max_t=epochs, grace_period=grace, reduction_factor=REDUCTION)
    if settings.scheduler == "median":
        return MedianStoppingRule(time_attr="epoch", grace_period=grace)
    return FIFOScheduler()


def run_trials(
    sweep: Sweep, known: list[Trial], trainable: Any, *, at_once: int, epochs: int, folder: Path, callback: tune.Callback
) -> None:
    """Try what is left to be tried; `callback` hears of every trial's start, epochs and end."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # its list of failed trials, by Tune's own names
    one = len(sweep.settings.objectives) == 1  # of several the search alone knows
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": DRIVER_CPU}),
        tune_config=tune.TuneConfig(
            metric=JUDGED if one else None,
            mode="max" if one else None,
            num_samples=trials_left(sweep, known),
            max_concurrent_trials=at_once,
            search_alg=search_of(sweep, known),
            scheduler=scheduler_of(sweep.settings, epochs),
            trial_dirname_creator=lambda trial: str(trial.trial_id),  # Tune's own would hold every key and value
        ),
        run_config=tune.RunConfig(name=folder.name, storage_path=str(folder.parent), verbose=0, callbacks=[callback]),
    )
    tuner.fit()
