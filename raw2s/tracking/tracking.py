"""The trackers of one run as one: each hears all that is logged."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

from raw2s.causes import cause
from raw2s.errors import ConfigError
from raw2s.tracking import mlflow, wandb
from raw2s.tracking.tracker import Data, Ended, Opening, Point, Status, Tracker

TRACKERS: dict[str, Callable[[Opening], Tracker]] = {"mlflow": mlflow.opened, "wandb": wandb.opened}
"""By the name that `tracking` in a config has."""


class Tracking:
    """Use `tracked_run`.

    Trackers are told in a thread of their own. Ctrl-C comes to the main one, and would else cut off a write and leave a database locked.
    One that fails costs the run no more than what it would show.
    """

    def __init__(self) -> None:
        self.trackers: dict[str, Tracker] = {}
        self.refused: dict[str, str] = {}
        """By tracker, why it could not be told something; the first time."""
        self.begun = False
        """Whether a stage or trial was."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tracking")

    def open(self, by: Sequence[str], opening: Opening) -> None:
        """Open the run in these trackers. Raises ConfigError."""

        def one_by_one() -> None:
            for name in by:
                self.trackers[name] = TRACKERS[name](opening)

        self._thread.submit(one_by_one).result()

    @property
    def ids(self) -> dict[str, str]:
        """The run's, by tracker."""
        return {name: tracker.id for name, tracker in self.trackers.items()}

    @property
    def where(self) -> str:
        """A line a tracker, for the end of a run."""
        said = {name: f" (incomplete: {why})" for name, why in self.refused.items()}
        return "".join(f"{name:<9}{tracker.where}{said.get(name, '')}\n" for name, tracker in self.trackers.items())

    def begin(self, name: str, settings: Mapping[str, Any]) -> None:
        self.begun = True
        self._tell(lambda tracker: tracker.begin(name, settings))

    def log_points(self, points: Sequence[tuple[str, Point]]) -> None:
        self._tell(lambda tracker: tracker.log_points(points))

    def log_ended(self, ended: Ended) -> None:
        self._tell(lambda tracker: tracker.log_ended(ended))

    def log_data(self, data: Data) -> None:
        self._tell(lambda tracker: tracker.log_data(data))

    def tag(self, name: str, key: str, value: str) -> None:
        self._tell(lambda tracker: tracker.tag(name, key, value))

    def log_results(self, metrics: Mapping[str, float], files: Sequence[Path], folder: str | None = None) -> None:
        self._tell(lambda tracker: tracker.log_results(metrics, files, folder))

    def run_id(self, name: str) -> str:
        """Of a stage or trial, in the first tracker that has runs for these; else empty."""
        return next(filter(None, (tracker.run_id(name) for tracker in self.trackers.values())), "")

    def end_killed(self, run_id: str) -> None:
        self._tell(lambda tracker: tracker.end_killed(run_id))

    def drop(self) -> None:
        self._tell(lambda tracker: tracker.drop())

    def end(self, status: Status) -> None:
        self._tell(lambda tracker: tracker.end(status))

    def _tell(self, say: Callable[[Tracker], None]) -> None:
        """One tracker after the other; what is told before is written before."""

        def one_by_one() -> None:
            for name, tracker in self.trackers.items():
                try:
                    say(tracker)
                except Exception as error:  # of any library: an artifact store that refuses a file, or a package that it lacks
                    self.refused.setdefault(name, shorten(_without_secrets(cause(error)), 200, placeholder=" ..."))

        self._thread.submit(one_by_one).result()


def _without_secrets(text: str) -> str:
    """Addresses in it without a password, and without what follows a question mark, where signatures stand."""
    return re.sub(r"(?<=://)[^/\s]*@|(?<=\S)\?\S*", "", text)


@contextmanager
def tracked_run(
    name: str,
    storage: Path,
    config: Mapping[str, Any],
    *,
    by: Sequence[str] = ("mlflow",),
    about: Mapping[str, str] | None = None,
) -> Iterator[Tracking]:
    """Open the run `name` in the trackers that `by` names; a failure inside ends it as FAILED, Ctrl-C and SIGTERM as KILLED.

    A ConfigError inside, before a stage or trial has begun, is a refusal and leaves no run.
    Raises ConfigError where a tracker cannot be opened.
    """
    opening = Opening(name=name, storage=storage, config=config, about=about or {})
    tracking = Tracking()
    try:
        tracking.open(by, opening)
        yield tracking
    except ConfigError:
        if tracking.begun:  # of a sweep whose nodes have gone, say
            tracking.end("FAILED")
        else:
            tracking.drop()
        raise
    except Exception:
        tracking.end("FAILED")
        raise
    except BaseException:
        tracking.end("KILLED")
        raise
    tracking.end("FINISHED")
