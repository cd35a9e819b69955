"""A sweep from its first trial to its best config: Ray Tune over any keys of a run config.

Trials are judged on devel, never on test. What no knob touches is made once, before the trials; a trial is the stages of its own
config up to the judged model, found or made in the one artifact store, so that the main job run with the best config finds it.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import ray
import yaml
from ray import tune
from rich.console import Console
from rich.table import Table

from raw2s.errors import StageFailed
from raw2s.pipeline.artifacts import ArtifactStore
from raw2s.pipeline.execute import Done, execute
from raw2s.pipeline.local_ray import start_ray
from raw2s.pipeline.progress import StageDisplay
from raw2s.pipeline.stage import Stage, inputs_first
from raw2s.tracking import Tracker, tracked_run
from raw2s.tuning.log import TrialLog, line_of, log_ended
from raw2s.tuning.outcome import best_on_devel
from raw2s.tuning.page import write_sweep_page
from raw2s.tuning.reading import Sweep
from raw2s.tuning.resources import trials_at_once
from raw2s.tuning.search import run_trials, trials_left
from raw2s.tuning.space import tree_at
from raw2s.tuning.trial import run_trial
from raw2s.tuning.trials import (
    JUDGED,
    JUDGED_SE,
    Trial,
    append_trial,
    figures_of,
    opened,
    read_trials,
    settled,
    write_trials,
)


@dataclass(frozen=True, kw_only=True)
class Running:
    """A sweep that has started: where it writes and whom it tells."""

    sweep: Sweep
    folder: Path
    store: ArtifactStore
    tracker: Tracker
    console: Console


def run_sweep(sweep: Sweep, console: Console | None = None) -> Trial:
    """Search, log every trial as a child run in MLflow, and write `<storage>/<name>/{best.yaml,report.html}`.

    The main job takes `best.yaml`. Started again, it goes on: finished and stopped trials are known, the others are tried once more.
    Returns the best trial. Raises ConfigError where the folder holds another search's trials or another process runs in it, StageFailed
    when a stage before the trials fails, or every trial.
    """
    console = console or Console()
    settings, config = sweep.settings, sweep.config(sweep.start)
    folder = (config.storage / settings.name).resolve()
    logged = {**sweep.tree, "sweep": settings.model_dump(mode="json")}
    with opened(folder, sweep) as earlier, tracked_run(settings.name, config.storage, logged) as tracker:
        running = Running(
            sweep=sweep, folder=folder, store=ArtifactStore(config.storage / "artifacts"), tracker=tracker, console=console
        )
        known = take_up(running, earlier)
        if trials_left(sweep, known):
            start_ray(config.ray, dashboard=True)
        shared, own = shared_stages(sweep)
        done = _execute(running, shared)
        trials, counts = _search(running, known, own)
        order = settled(trials, lambda trial: run_to_end(running, trial))
        if not order:
            failed = next((trial for trial in trials if trial.status == "failed"), None)
            why = "no trial ended" if failed is None else f"every trial failed, the first with: {failed.reason}"
            raise StageFailed(f"{why}; run the config with one value a key")
        file = write_best(running, order[0])
        page = write_sweep_page(sweep, read_trials(folder, sweep), folder)
        tracker.log_results({}, [page])
    made = sum(not stage.cached for stage in done.values())
    console.print(table_of(sweep, order))
    console.print(
        f"stages   before the trials {len(done) - made} found, {made} made; by trials {counts['found']} found, {counts['made']} made\n"
        f"{best_on_devel(order)}\nbest     {file}\nreport   {page}\nmlflow   {tracker.where}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    return order[0]


def take_up(running: Running, earlier: list[Trial]) -> list[Trial]:
    """The trials of earlier starts, logged under this start's parent; what a killed start left running in MLflow is ended."""
    write_trials(running.folder, running.sweep, earlier)
    for trial in earlier:
        if trial.run_id:
            running.tracker.end_killed(trial.run_id)
        if trial.counts:
            log_ended(running.tracker, trial, cached=True)
            running.console.print(f"{line_of(trial)} (before)", markup=False, highlight=False, soft_wrap=True, style="dim")
    return earlier


def shared_stages(sweep: Sweep) -> tuple[list[Stage], list[Stage]]:
    """The stages that no knob touches, and those that a trial may have to make."""
    one, other = (inputs_first([sweep.judged(point)]) for point in (sweep.start, sweep.point(0.75, 1)))
    keys = {stage.key for stage in one} & {stage.key for stage in other}
    return [stage for stage in one if stage.key in keys], [stage for stage in (*one, *other) if stage.key not in keys]


def _execute(running: Running, stages: Sequence[Stage]) -> dict[str, Done]:
    config = running.sweep.config(running.sweep.start)
    with StageDisplay(running.console) as display:
        return execute(list(stages), store=running.store, display=display, ray_config=config.ray)


def _search(running: Running, known: list[Trial], own: list[Stage]) -> tuple[list[Trial], dict[str, int]]:
    """All trials, known and new, and how many stages the new ones found and made."""
    sweep, folder = running.sweep, running.folder
    if not trials_left(sweep, known):
        return known, {"found": 0, "made": 0}
    limit = sweep.settings.concurrent
    fitting = trials_at_once(own, ray.cluster_resources())
    log = TrialLog(sweep, folder, running.tracker, running.console, first=1 + max((t.number for t in known), default=0))
    run_trials(
        sweep,
        known,
        tune.with_parameters(
            run_trial,
            sweep=sweep,
            store=str(running.store.root),
            folder=str(folder),
            started_in=os.getcwd(),
        ),
        at_once=fitting if limit == "auto" else min(limit, fitting),
        epochs=sweep.judged(sweep.start).training.epochs,
        folder=folder / f"tune-{running.tracker.parent_id}",
        callback=log,
    )
    if cut_off := [trial for trial in log.trials.values() if trial.status == "running"]:
        for trial in cut_off:
            running.tracker.end_killed(trial.run_id)
        raise StageFailed("the sweep was interrupted; start it again, it goes on with the trials that are left")
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # of stopped trials
    counts = {what: sum(count[what] for count in log.counts.values()) for what in ("found", "made")}
    return [*(trial for trial in known if trial.counts), *log.trials.values()], counts


def run_to_end(running: Running, trial: Trial) -> Trial:
    """The trial with its model found, or else made, and judged as it ended; as failed where that fails."""
    judged = running.sweep.judged(trial.point)
    try:
        model = running.store.find(judged.kind, judged.key, running.console.print)
        model = model or _execute(running, inputs_first([judged]))[judged.name].artifact
    except StageFailed as error:
        ended = replace(trial, status="failed", reason=str(error))
    else:
        judged_by = figures_of(model.metrics)
        ended = replace(
            trial,
            status="finished",
            figure=judged_by[JUDGED],
            standard_error=judged_by[JUDGED_SE],
            epoch=judged.training.epochs,
        )
    if ended != trial:
        append_trial(running.folder, ended)
        log_ended(running.tracker, ended, cached=False)
    return ended


def write_best(running: Running, best: Trial) -> Path:
    """`best.yaml`, a run config with the best trial's values; in MLflow with its figure."""
    tree = tree_at(running.sweep.tree, running.sweep.knobs, best.point)
    file = running.folder / "best.yaml"
    file.write_text(yaml.safe_dump({**tree, "name": f"{tree.get('name', 'run')}-best"}, sort_keys=False))
    running.tracker.tag(best.name, "best", "true")
    running.tracker.log_results({f"best/{JUDGED}": best.figure or 0.0}, [file])
    return file


def table_of(sweep: Sweep, order: Sequence[Trial]) -> Table:
    """The trials that count, best first, as they are given."""
    table = Table(title="trials, best first (devel)")
    for column in ("trial", *(knob.key for knob in sweep.knobs), "epochs", JUDGED):
        table.add_column(column, justify="right")
    for trial in order:
        reached = f"{trial.epoch} (stopped)" if trial.status == "stopped" else str(trial.epoch)
        values = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in trial.values.values()]
        table.add_row(str(trial.number), *values, reached, f"{trial.figure:.4f}")
    return table
