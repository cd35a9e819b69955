"""What a tracker is: the one interface of `raw2s.tracking`'s files, and what they are told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Status = Literal["FINISHED", "FAILED", "KILLED"]
Point = Mapping[str, float]
"""Of a training curve: figures, with `step` and `time`, in milliseconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What a run is called when it starts, and what made it."""

    name: str
    storage: Path
    config: Mapping[str, Any]
    about: Mapping[str, str] = field(default_factory=dict)
    """Versions and the command, by name."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A stage of a run, or a trial of a sweep, that is over."""

    name: str
    key: str
    cached: bool
    """Whether it was found rather than made."""
    settings: Mapping[str, Any]
    metrics: Mapping[str, Any]
    status: Status = "FINISHED"
    links: Mapping[str, str] = field(default_factory=dict)
    """Where its artifact and its model lie, as paths from the storage."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Examples that a run reads."""

    name: str
    digest: str
    """Over their content."""
    folder: str
    """Where they lie, from the storage."""
    sizes: Mapping[str, int]
    """Examples by part."""


class Tracker(Protocol):
    """One run where it is logged. Not to be called from several threads at once. What it raises is said at the end of the run."""

    @property
    def id(self) -> str:
        """By which `end_killed` finds the run."""

    @property
    def where(self) -> str:
        """How to look at it, without a password."""

    def begin(self, name: str, settings: Mapping[str, Any]) -> None:
        """A stage or trial starts now."""

    def log_points(self, points: Sequence[tuple[str, Point]]) -> None:
        """Points of training curves, with the stage's name, while it trains."""

    def log_ended(self, ended: Ended) -> None:
        """A stage or trial is over."""

    def log_data(self, data: Data) -> None: ...

    def tag(self, name: str, key: str, value: str) -> None:
        """Say something of a stage or trial that is no figure."""

    def log_results(self, metrics: Mapping[str, float], files: Sequence[Path], folder: str | None = None) -> None:
        """The run's scores, and its results as files, in a folder of theirs where one is named."""

    def run_id(self, name: str) -> str:
        """Of a stage or trial; empty where it has no run of its own."""

    def end_killed(self, run_id: str) -> None:
        """End a run that an earlier process left running, and all of its stages; `run_id` is its own or a stage's."""

    def drop(self) -> None:
        """Take back a run that was refused before any of it began."""

    def end(self, status: Status) -> None:
        """End the run, and the stages that it left unfinished."""
