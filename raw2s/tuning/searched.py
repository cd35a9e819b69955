"""What is searched for one entry of `methods`: a value that its trials take along.

Needs no transformers, so that a trial's process starts two seconds sooner.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raw2s.config import RunConfig, SweepConfig, parse_config
from raw2s.pipeline.plan import plan_stages
from raw2s.pipeline.training_stages import Trained
from raw2s.tuning.space import Knob, Point, point_of, tree_at


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What is searched for one entry of `methods`, and how."""

    settings: SweepConfig
    entry: int
    part: str
    """`1-naive`, of its folder and before its trials' names, where the file searches several entries, each by itself; else empty."""
    tree: dict[str, Any]
    """The run config, the entry's distributions inside."""
    knobs: list[Knob]
    """None of an entry on which no distribution bears: it stands as it is."""

    def config(self, point: Mapping[str, float]) -> RunConfig:
        """The run config at a point. Raises ConfigError."""
        return parse_config(tree_at(self.tree, self.knobs, point))

    def judged(self, point: Mapping[str, float]) -> Trained:
        """The stage at a point whose model is judged."""
        return judged_stage(self.config(point), self.entry)

    @property
    def start(self) -> Point:
        """A point that stands for all of them."""
        return self.point(0.25, 0)

    def point(self, at: float, option: int) -> Point:
        """Every number at `at` and every choice at `option`."""
        return point_of(self.knobs, at, option)


def judged_stage(config: RunConfig, entry: int) -> Trained:
    """The last stage that trains of an entry of `methods`: its student, or cDPO where it has that; of the first seed."""
    plan = plan_stages(config, config.seeds[0])
    rows = [student for student in plan.students if student.entry == entry]
    return rows[-1].stage
