"""A run is watched: what its stages do is told to the trackers, and to the status file that `raw2s status` reads."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from raw2s.causes import cause
from raw2s.errors import ConfigError, StageFailed
from raw2s.pipeline.data_stages import Examples
from raw2s.pipeline.execute import Done, Listener
from raw2s.pipeline.progress import Point, StageDisplay, State
from raw2s.pipeline.stage import Stage
from raw2s.pipeline.training_stages import Trained
from raw2s.status import BEAT_SECONDS, Outcome, Process, RunStatus, StageStatus, Steps
from raw2s.storage import Place
from raw2s.tracking import Ended, Tracking
from raw2s.tracking.tracker import Data


class StatusFile:
    """The status of a run, in its folder. Thread-safe: `kept` writes it from a thread of its own too."""

    def __init__(self, folder: Place, status: RunStatus) -> None:
        self.folder, self.status = folder, status
        self.lock = threading.Lock()

    def say(self, **changes: Any) -> None:
        """Of the run."""
        with self.lock, suppress(OSError):  # a full disk stops a run soon enough
            self.status = self.status.model_copy(update=changes | {"updated": time.time()})
            self.status.write(self.folder)

    def say_of(self, name: str, *, write: bool = True, **changes: Any) -> None:
        """Of a stage."""
        with self.lock:
            stages = [own.model_copy(update=changes) if own.name == name else own for own in self.status.stages]
            self.status = self.status.model_copy(update={"stages": stages})
        if write:
            self.say()

    def of(self, name: str) -> StageStatus:
        return next(stage for stage in self.status.stages if stage.name == name)


@contextmanager
def kept(folder: Place, run: str, stages: Sequence[Stage], *, command: str, tracked: dict[str, str]) -> Iterator[StatusFile]:
    """The status file of a run that starts now; what ends the block is what came of it."""
    now = time.time()
    waiting = [StageStatus(name=stage.name, key=stage.key, folder=stage.place) for stage in stages]
    process = Process.own()
    status = RunStatus(
        run=run, outcome="running", process=process, started=now, updated=now, command=command, tracked=tracked, stages=waiting
    )
    file = StatusFile(folder, status)
    file.say()
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_SECONDS):
            file.say()

    beating = threading.Thread(target=beat, daemon=True)
    beating.start()
    outcome: Outcome = "killed"
    reason = "stopped by Ctrl-C or a signal"
    try:
        yield file
        outcome, reason = "done", ""
    except Exception as error:
        outcome, reason = "failed", str(error) if isinstance(error, (ConfigError, StageFailed)) else cause(error)
        raise
    finally:
        ended.set()
        beating.join()
        file.say(outcome=outcome, reason=reason)


class Watching(Listener):
    """Passes on what `execute` tells of a run's stages."""

    def __init__(self, file: StatusFile, tracking: Tracking, display: StageDisplay) -> None:
        self.file, self.tracking, self.display = file, tracking, display

    def started(self, stage: Stage) -> None:
        self.file.say_of(stage.name, state="running", started=time.time())
        self.tracking.begin(stage.name, stage.settings)

    def done(self, stage: Stage, done: Done) -> None:
        manifest = done.artifact.manifest
        self.file.say_of(stage.name, state="done", cached=done.cached, seconds=manifest["seconds"], steps=None)
        links = {"artifact": stage.place}
        if isinstance(stage, Trained):
            links["model"] = stage.source(Path(stage.place))
        if isinstance(stage, Examples):
            self.tracking.log_data(
                Data(name=stage.name, digest=stage.drawn.content, folder=stage.place, sizes=done.artifact.metrics)
            )
        metrics = done.artifact.metrics | {"seconds": manifest["seconds"]}
        self.tracking.log_ended(
            Ended(name=stage.name, key=stage.key, cached=done.cached, settings=stage.settings, metrics=metrics, links=links)
        )
        if done.artifact.metrics.get("unparsable") == 1:
            self.display.warn(
                f"{stage.name}: none of the answers is in the asked format, so all count as empty; see the closing notes"
            )

    def failed(self, stage: Stage, reason: str) -> None:
        since = self.file.of(stage.name).started or time.time()
        self.file.say_of(stage.name, state="failed", reason=reason, seconds=time.time() - since)
        self.tracking.log_ended(
            Ended(name=stage.name, key=stage.key, cached=False, settings=stage.settings, metrics={}, status="FAILED")
        )
        self.tracking.tag(stage.name, "reason", reason)

    def progressed(self, states: dict[str, State], points: list[tuple[str, Point]]) -> None:
        """The status file's own thread writes it."""
        self.tracking.log_points(points)
        for name, (done, total, note) in states.items():
            stage = self.file.of(name)
            if stage.state == "running":
                seen = stage.steps or Steps(done=done, total=total, note=note, first=done, first_time=time.time())
                steps = seen.model_copy(update={"done": done, "total": total, "note": note})
                self.file.say_of(name, write=False, steps=steps)
