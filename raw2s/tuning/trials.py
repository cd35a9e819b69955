"""A sweep's trials: what is known of each, the file in which they outlive the driver, and which of them is the best."""

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from raw2s.config import OBJECTIVES, SweepConfig
from raw2s.errors import ConfigError
from raw2s.storage.files import write
from raw2s.tuning.judged import JUDGED
from raw2s.tuning.searched import Sweep
from raw2s.tuning.space import Point

FILE = "trials.jsonl"
"""In the sweep's folder: first what is searched, then a line whenever a trial starts or ends."""
LOCK = ".lock"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One point of the space and what came of it."""

    number: int
    point: Point
    values: dict[str, Any]
    """By the config's keys."""
    status: Literal["running", "finished", "stopped", "failed"]
    figure: float | None = None
    """`JUDGED` of the epoch that would be kept if training had ended there; None where no epoch has ended."""
    standard_error: float | None = None
    """`JUDGED_SE`; None where no epoch has ended, and in files of earlier versions."""
    objectives: dict[str, float] = field(default_factory=dict)
    """The further ones, of that epoch."""
    front: bool = False
    """Whether, of several objectives, no other trial is as good in all and better in one."""
    epoch: int = 0
    reason: str = ""
    """Why it failed."""
    run_id: str = ""
    """Its run in MLflow."""
    part: str = ""
    """Its sweep's, where several entries of `methods` are searched."""

    @property
    def name(self) -> str:
        return f"{self.part}/trial-{self.number}".removeprefix("/")

    @property
    def ci95(self) -> tuple[float, float] | tuple[None, None]:
        """The figure's normal 95 % interval, within [0, 1]; of none, or without a standard error, no bounds."""
        if self.figure is None or self.standard_error is None:
            return None, None
        reach = 1.96 * self.standard_error
        return max(0.0, self.figure - reach), min(1.0, self.figure + reach)

    @property
    def counts(self) -> bool:
        """Whether it is not tried again: it has a figure, by which the search goes on."""
        return self.status in ("finished", "stopped") and self.figure is not None


def objectives_of(settings: SweepConfig, metrics: Mapping[str, Any]) -> dict[str, float]:
    """The objectives beside `JUDGED` of an epoch, or a trained model."""
    return {name: float(metrics[name]) for name in settings.objectives if name != JUDGED}


def on_objectives(settings: SweepConfig, trial: Trial) -> list[float]:
    """The trial by each objective, in their order."""
    return [float(trial.figure or 0.0) if name == JUDGED else trial.objectives[name] for name in settings.objectives]


def with_front(settings: SweepConfig, order: Sequence[Trial]) -> list[Trial]:
    """Trials that count, those on the Pareto front marked and first; of one objective as they are."""
    if len(settings.objectives) == 1:
        return list(order)
    signs = [1.0 if OBJECTIVES[name] == "max" else -1.0 for name in settings.objectives]
    values = [[sign * value for sign, value in zip(signs, on_objectives(settings, trial), strict=True)] for trial in order]

    def beaten(own: list[float]) -> bool:
        return any(other != own and all(a >= b for a, b in zip(other, own, strict=True)) for other in values)

    marked = [replace(trial, front=not beaten(own)) for trial, own in zip(order, values, strict=True)]
    return sorted(marked, key=lambda trial: not trial.front)


def new_trial(sweep: Sweep, number: int, point: Point, run_id: str = "") -> Trial:
    values = {knob.key: knob.value(point) for knob in sweep.knobs}
    return Trial(number=number, point=point, values=values, status="running", run_id=run_id, part=sweep.part)


def searched(sweep: Sweep) -> str:
    """16 hex digits over all that makes one sweep's trials comparable: neither their number nor how many run at once."""
    settings = sweep.settings.model_dump(mode="json", exclude={"name", "methods", "trials", "test_seeds", "concurrent"})
    tree = {key: value for key, value in sweep.tree.items() if key != "tracking"}
    text = json.dumps([tree, sweep.entry, settings], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def opened(folder: Path, sweep: Sweep) -> Iterator[list[Trial]]:
    """The trials of earlier starts, in a folder that is made and is this process's alone until it is done or dies.

    Raises ConfigError where another process has it, or where they are of another space.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"sweep.name: a sweep is running in {folder}; wait until it ends, or set another sweep.name"
            ) from None
        yield read_trials(folder, sweep)


def read_trials(folder: Path, sweep: Sweep) -> list[Trial]:
    """The trials of earlier starts, as each was last heard of, in the order of their numbers.

    Raises ConfigError where they are of another space.
    """
    file = folder / FILE
    if not file.is_file():
        return []
    first, *lines = file.read_text(encoding="utf-8").splitlines() or [""]
    if first != searched(sweep):
        raise ConfigError(
            f"sweep.name: {folder} holds trials of another search; set another sweep.name, or delete {file} (models are kept)"
        )
    known: dict[int, Trial] = {}
    for line in lines:
        try:
            trial = Trial(**json.loads(line))
        except ValueError:
            continue  # cut off in writing
        known[trial.number] = trial
    return [known[number] for number in sorted(known)]


def write_trials(folder: Path, sweep: Sweep, trials: Iterable[Trial]) -> None:
    """Begin the file anew with these trials."""
    write(folder / FILE, "".join(f"{line}\n" for line in (searched(sweep), *map(_line, trials))).encode())


def append_trial(folder: Path, trial: Trial) -> None:
    with (folder / FILE).open("a", encoding="utf-8") as file:
        file.write(f"{_line(trial)}\n")


def _line(trial: Trial) -> str:
    return json.dumps(asdict(trial))


def ranked(trials: Iterable[Trial]) -> list[Trial]:
    """Those that count, best first; of equals the earlier one."""
    return sorted((trial for trial in trials if trial.counts), key=lambda trial: (-(trial.figure or 0.0), trial.number))


def settled(trials: Iterable[Trial], run_to_end: Callable[[Trial], Trial]) -> list[Trial]:
    """Those that count, best first, of which the first has ended and has a model.

    The one that would be first is run to its end, which gives a finished trial back as it is, and is judged by the figure that it
    ends with; so it goes on until the first stays first.
    """
    standing = {trial.number: trial for trial in trials}
    while order := ranked(standing.values()):
        ended = run_to_end(order[0])
        if ended == order[0]:
            break
        standing[ended.number] = ended
    return order
