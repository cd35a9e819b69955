"""A sweep from its first trial to its best config: Ray Tune over any keys of a run config.

Trials are judged on devel, never on test. What no knob touches is made once, before the trials; a trial is the stages of its own
config up to the judged model, found or made in the one artifact store, so that the main job run with the best config finds it.
"""

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import ray
from ray import tune
from rich.console import Console

from raw2s.config import load_config
from raw2s.errors import StageFailed
from raw2s.pipeline.artifacts import ArtifactStore
from raw2s.pipeline.environment import command, environment
from raw2s.pipeline.execute import Done, execute
from raw2s.pipeline.local_ray import start_ray
from raw2s.pipeline.preflight import check_surroundings
from raw2s.pipeline.progress import StageDisplay
from raw2s.pipeline.run import run_pipeline
from raw2s.pipeline.stage import Stage, inputs_first
from raw2s.storage import ARTIFACTS
from raw2s.tracking import Tracking, tracked_run
from raw2s.tuning.best import Outcome, best_tree, table_of, write_best, write_fronts
from raw2s.tuning.entries import joined
from raw2s.tuning.judged import JUDGED, JUDGED_SE, figures_of
from raw2s.tuning.log import TrialLog, line_of, log_ended
from raw2s.tuning.outcome import best_on_devel
from raw2s.tuning.page import write_sweep_page
from raw2s.tuning.resources import trials_at_once
from raw2s.tuning.search import run_trials, trials_left
from raw2s.tuning.searched import Sweep
from raw2s.tuning.trial import run_trial
from raw2s.tuning.trials import Trial, append_trial, objectives_of, opened, read_trials, settled, with_front, write_trials


@dataclass(frozen=True, kw_only=True)
class Running:
    """The search for one entry that has started: where it writes and whom it tells."""

    sweep: Sweep
    folder: Path
    store: ArtifactStore
    tracking: Tracking
    console: Console


def run_sweeps(sweeps: Sequence[Sweep], console: Console | None = None) -> list[Outcome]:
    """Search for one entry of `methods` after the other; all trials are child runs of one in MLflow.

    Writes `<storage>/<name>/best.yaml`, which the main job takes, and a `report.html` for each entry; runs the best on test where the
    sweep has `test_seeds`. Started again, it resumes: finished and stopped trials are known, the others are tried once more.

    Returns what came of each entry that has a knob. Raises ConfigError where a folder holds another search's trials or another process
    runs in it, StageFailed when a stage before the trials fails, or every trial of an entry.
    """
    console = console or Console()
    searched = [sweep for sweep in sweeps if sweep.knobs]
    settings, config = searched[0].settings, searched[0].config(searched[0].start)
    check_surroundings(config)
    assert isinstance(config.storage, Path), "load_sweeps refuses a URI"
    folder, store = (config.storage / settings.name).resolve(), ArtifactStore(config.storage / ARTIFACTS)
    logged = {**joined({sweep.entry: sweep.tree for sweep in searched}), "sweep": settings.model_dump(mode="json")}
    with ExitStack() as held:
        earlier = [held.enter_context(opened(folder / sweep.part, sweep)) for sweep in searched]
        about = {"command": command(), **environment()}
        tracking = held.enter_context(tracked_run(settings.name, config.storage, logged, by=config.tracking, about=about))
        entries = [
            Running(sweep=sweep, folder=folder / sweep.part, store=store, tracking=tracking, console=console)
            for sweep in searched
        ]
        known = [take_up(running, trials) for running, trials in zip(entries, earlier, strict=True)]
        if any(trials_left(running.sweep, trials) for running, trials in zip(entries, known, strict=True)):
            start_ray(config.ray, dashboard=True)
        shared, own = zip(*map(shared_stages, searched), strict=True)
        done = _execute(entries[0], list({stage.name: stage for stages in shared for stage in stages}.values()))
        outcomes = [search_entry(*found) for found in zip(entries, known, own, strict=True)]
        file = write_best(outcomes, folder)
        write_fronts(outcomes, folder)
        pages = [write_sweep_page(r.sweep, read_trials(r.folder, r.sweep), r.folder) for r in entries]
        tracking.log_results({}, [file])
        for outcome, page in zip(outcomes, pages, strict=True):
            tracking.tag(outcome.best.name, "best", "true")
            found = [page, *sorted(page.parent.glob("front-*.yaml"))]
            tracking.log_results({best_metric(outcome): outcome.best.figure or 0.0}, found, outcome.sweep.part or None)
    console.print(table_of(sweeps, outcomes))
    if settings.test_seeds:
        run_pipeline(load_config(file), console)
    made = sum(not stage.cached for stage in done.values())
    found_by, made_by = (sum(getattr(outcome, what) for outcome in outcomes) for what in ("found", "made"))
    luck = "\n".join(f"{o.sweep.part} {best_on_devel(o.order)}".lstrip() for o in outcomes)
    reports = "\n".join(f"report   {page}" for page in pages)
    tested = f"\ntested   {(config.storage / best_tree(outcomes)['name']).resolve()}" if settings.test_seeds else ""
    console.print(
        f"stages   before the trials {len(done) - made} found, {made} made; by trials {found_by} found, {made_by} made\n"
        f"{luck}\nbest     {file}{tested}\n{reports}\n{tracking.where}",
        end="", highlight=False, soft_wrap=True,
    )  # fmt: skip
    return outcomes


def best_metric(outcome: Outcome) -> str:
    """What the parent run calls an entry's best figure; MLflow takes no plus sign."""
    return "/".join(("best", *filter(None, [outcome.sweep.part.replace("+", "_")]), JUDGED))


def search_entry(running: Running, known: list[Trial], own: list[Stage]) -> Outcome:
    """Try what is left to try for one entry. Raises StageFailed where no trial ends."""
    trials, counts = _search(running, known, own)
    order = settled(trials, lambda trial: run_to_end(running, trial))
    if not order:
        failed = next((trial for trial in trials if trial.status == "failed"), None)
        why = "no trial ended" if failed is None else f"every trial failed, the first with: {failed.reason}"
        of = f" of {running.sweep.part}" if running.sweep.part else ""
        raise StageFailed(f"{why}{of}; run the config with one value a key")
    marked = with_front(running.sweep.settings, order)
    for trial in marked:
        if trial not in order:
            append_trial(running.folder, trial)
    return Outcome(sweep=running.sweep, order=marked, found=counts["found"], made=counts["made"])


def take_up(running: Running, earlier: list[Trial]) -> list[Trial]:
    """The trials of earlier starts, logged under this start's parent; what a killed start left running in MLflow is ended."""
    running.folder.mkdir(parents=True, exist_ok=True)
    write_trials(running.folder, running.sweep, earlier)
    for trial in earlier:
        if trial.run_id:
            running.tracking.end_killed(trial.run_id)
        if trial.counts:
            log_ended(running.tracking, trial, cached=True)
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
    log = TrialLog(sweep, folder, running.tracking, running.console, first=1 + max((t.number for t in known), default=0))
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
        folder=folder / f"tune-{time.time_ns()}",
        callback=log,
    )
    if cut_off := [trial for trial in log.trials.values() if trial.status == "running"]:
        for trial in cut_off:
            running.tracking.end_killed(trial.run_id)
        raise StageFailed("the sweep was interrupted; start it again, it resumes with the trials that are left")
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
            objectives=objectives_of(running.sweep.settings, model.metrics),
            epoch=judged.training.epochs,
        )
    if ended != trial:
        append_trial(running.folder, ended)
        log_ended(running.tracking, ended, cached=False)
    return ended
