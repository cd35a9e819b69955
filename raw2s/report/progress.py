"""How far a run is, for a terminal: a line on the whole, and a row a stage."""

import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Group
from rich.text import Text

from raw2s.report.costs import duration
from raw2s.report.table import plain_table
from raw2s.status import SILENT_SECONDS, Outcome, RunStatus, StageStatus
from raw2s.training.progress import MODEL


def status_table(status: RunStatus, at: float | None = None) -> Group:
    """A rich renderable, of now or of `at`, in seconds since 1970."""
    now = time.time() if at is None else at
    outcome = status.now(now)
    table = plain_table()
    for heading, side in (("stage", "left"), ("state", "left"), ("progress", "right"), ("time", "right"), ("left", "right")):
        table.add_column(heading, justify=side, overflow="fold")  # type: ignore[arg-type]
    for stage in status.stages:
        table.add_row(*map(Text, _cells(stage, outcome, now)))
    failures = [Text(f"{stage.name} failed: {stage.reason}") for stage in status.stages if stage.state == "failed"]
    return Group(Text(summary(status, now), style="bold"), Text(), table, *failures)


def summary(status: RunStatus, now: float) -> str:
    """`demo: running for 3 min 20 s as process 12 on laptop; 7 of 30 stages done, 5 of them cached`."""
    outcome = status.now(now)
    done = [stage for stage in status.stages if stage.state == "done"]
    cached = sum(stage.cached for stage in done)
    counted = f"{len(done)} of {len(status.stages)} stages done, {cached} of them cached"
    heard = duration(max(0.0, now - status.updated))
    process = f"process {status.process.pid} on {status.process.host}"
    said = {
        "running": f"running for {duration(now - status.started)} as {process}" + _writing(status),
        "done": f"done {heard} ago, after {duration(status.updated - status.started)}",
        "failed": f"failed {heard} ago: {status.reason}",
        "killed": f"{status.reason or 'killed'}, {heard} ago" if status.outcome == "killed" else _dead(status, process, heard),
    }
    return f"{status.run}: {said[outcome]}; {counted}"


def models(status: RunStatus, storage: Path) -> Iterator[str]:
    """The models that the run has made or found, a line each: the stage and the folder."""
    for stage in status.stages:
        folder = storage / stage.folder / MODEL
        if stage.state == "done" and folder.is_dir():
            yield f"{stage.name}: {folder}"


def _writing(status: RunStatus) -> str:
    """What it does when no stage is left."""
    return ", writing the results" if all(stage.state == "done" for stage in status.stages) else ""


def _dead(status: RunStatus, process: str, heard: str) -> str:
    if status.process.here:
        return f"killed: {process} is gone, last heard of {heard} ago"
    return f"killed, it seems: {process} writes every few seconds and has not for {heard} (over {SILENT_SECONDS:.0f} s)"


def _cells(stage: StageStatus, outcome: Outcome, now: float) -> list[str]:
    state: str = stage.state
    spent = stage.seconds
    if stage.state == "running" and outcome != "running":
        state = "cut off"
    elif stage.state == "running" and stage.started is not None:
        spent = now - stage.started
    elif stage.state == "waiting" and outcome != "running":
        state = "not begun"
    steps = stage.steps
    progress = "" if steps is None else f"{steps.done:,}/{steps.total:,}"
    left = stage.left(now) if outcome == "running" else None
    return [
        stage.name,
        "cached" if stage.cached else state,
        progress,
        "" if spent is None else duration(spent) + (" then" if stage.cached else ""),
        "" if left is None else f"about {duration(left)}",
    ]
