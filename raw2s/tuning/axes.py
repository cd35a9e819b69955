"""The axes on which a sweep's figures show its trials: one a knob, and of a simplex one a weight."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from raw2s.tuning.space import Knob
from raw2s.tuning.trials import Trial


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What is read of a trial, and between which ends it lies."""

    title: str
    low: float
    high: float
    read: Callable[[Trial], float]
    log: bool = False
    options: tuple[str, ...] = ()
    """Of a choice, of which the option's number is read."""

    @property
    def ends(self) -> tuple[str, str]:
        return (self.options[0], self.options[-1]) if self.options else (f"{self.low:.3g}", f"{self.high:.3g}")

    def place(self, trial: Trial) -> float:
        """Where the trial lies: 0 at the low end, 1 at the high one."""
        if self.log:
            return math.log(self.read(trial) / self.low) / math.log(self.high / self.low)
        return (self.read(trial) - self.low) / (self.high - self.low)


def axes_of(knobs: Sequence[Knob], teachers: Sequence[str]) -> list[Axis]:
    """In the knobs' order; a simplex's weights are called by their teachers' names."""
    return [axis for knob in knobs for axis in _axes(knob, teachers)]


def weights_of(knob: Knob, teachers: Sequence[str]) -> list[Axis]:
    """An axis a weight of a simplex."""

    def weight(number: int) -> Callable[[Trial], float]:
        return lambda trial: float(trial.values[knob.key][number])

    return [Axis(title=f"{knob.key} {name}", low=0, high=1, read=weight(i)) for i, name in enumerate(teachers)]


def _axes(knob: Knob, teachers: Sequence[str]) -> Iterator[Axis]:
    if knob.name == "simplex":
        yield from weights_of(knob, teachers)
    elif knob.options:
        options = tuple(map(str, knob.argument))
        yield Axis(title=knob.key, low=0, high=len(options) - 1, read=lambda trial: trial.point[knob.key], options=options)
    else:
        low, high = knob.argument
        log = knob.name == "loguniform"
        yield Axis(title=knob.key, low=low, high=high, read=lambda trial: float(trial.values[knob.key]), log=log)
