"""How far a run is: the content of status.json in its folder, written as it goes, and whether the process that writes it lives."""

import os
import socket
import time
from pathlib import Path
from typing import Literal

from raw2s.record import Record
from raw2s.storage import Place
from raw2s.storage.files import answering, read, write

FILE = "status.json"
BEAT_SECONDS = 5.0
"""How often a living run writes it, whatever it does."""
SILENT_SECONDS = 120.0
"""Without a word from a process on another machine, after which it counts as dead; clocks may differ by some of it."""
SHOWN_SHARE = 0.1
"""Of a stage that is done in sight of its run before its pace says how long the rest takes."""

Outcome = Literal["running", "done", "failed", "killed"]


class Process(Record):
    """A process, told from a later one with its number by when it started."""

    host: str
    pid: int
    started: str
    """The system's clock ticks since it booted; empty where it does not say."""

    @classmethod
    def own(cls) -> "Process":
        return cls(host=socket.gethostname(), pid=os.getpid(), started=_started(os.getpid()) or "")

    @property
    def here(self) -> bool:
        """Whether it ran on this machine."""
        return self.host == socket.gethostname()

    @property
    def lives(self) -> bool:
        """Of one on this machine."""
        started = _started(self.pid)
        return started is not None and started == self.started


class Steps(Record):
    """Rows labeled, or steps of a training."""

    done: int
    total: int
    note: str
    first: int
    """What was done when the run first heard of it: of a stage that was cut off before, not 0."""
    first_time: float


class StageStatus(Record):
    """Times are seconds since 1970."""

    name: str
    key: str
    folder: str
    """Of its artifact, from the storage."""
    state: Literal["waiting", "running", "done", "failed"] = "waiting"
    cached: bool = False
    """Found rather than made."""
    started: float | None = None
    seconds: float | None = None
    """Of a finished one, what it took when it was made; of a failed one, until it failed."""
    steps: Steps | None = None
    reason: str = ""
    """Why it failed."""

    def left(self, now: float) -> float | None:
        """Seconds until a running stage is done, if it goes on at its pace in this run; None where there is no pace to tell it by."""
        steps = self.steps
        if self.state != "running" or steps is None or steps.done >= steps.total:
            return None
        made = steps.done - steps.first
        if made < SHOWN_SHARE * (steps.total - steps.first):
            return None
        return (steps.total - steps.done) * (now - steps.first_time) / made


class RunStatus(Record):
    """The whole of status.json."""

    run: str
    outcome: Outcome
    """As the run itself knew it when it last wrote; `now` knows better."""
    reason: str = ""
    process: Process
    started: float
    updated: float
    command: str
    tracked: dict[str, str]
    """The run's id, by tracker."""
    stages: list[StageStatus]

    def now(self, at: float | None = None) -> Outcome:
        """A run whose process is dead did not say so: it was killed."""
        if self.outcome != "running":
            return self.outcome
        silent = (time.time() if at is None else at) - self.updated > SILENT_SECONDS
        lives = self.process.lives if self.process.here else not silent
        return "running" if lives else "killed"

    def write(self, folder: Place) -> None:
        """`folder/status.json`, whole or not at all."""
        write(folder / FILE, (self.model_dump_json(indent=1) + "\n").encode())

    @classmethod
    def read(cls, folder: Place) -> "RunStatus | None":
        """None where there is none that this version reads. Raises StageFailed where a store does not answer."""
        try:
            with answering(folder):
                return cls.model_validate_json(read(folder / FILE) or b"")
        except (OSError, ValueError):
            return None


def _started(pid: int) -> str | None:
    """When a process of this machine started; empty where the system does not say, None where there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        if Path("/proc/self/stat").is_file():
            return None
    else:
        after = stat.rpartition(")")[2].split()  # the name before it may hold anything
        return None if after[0] == "Z" else after[19]  # a zombie only waits to be counted
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass  # it is another user's
    return ""
