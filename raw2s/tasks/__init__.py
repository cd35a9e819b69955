"""What is learned: one file a task, and here the names a config knows them by."""

from functools import cache
from typing import Annotated

from raw2s.choices import Chosen, chosen
from raw2s.tasks.cosmosqa import COSMOSQA
from raw2s.tasks.own import OWN
from raw2s.tasks.sciq import SCIQ
from raw2s.tasks.slurp_scenario import SLURP_SCENARIO
from raw2s.tasks.slurp_slots import SLURP_SLOTS
from raw2s.tasks.task import Example, Halves, Part, Scoring, Task, TaskKind, TaskSection

__all__ = [
    "TASKS",
    "AnyTask",
    "Example",
    "Halves",
    "Part",
    "Scoring",
    "Task",
    "TaskKind",
    "TaskSection",
    "draw_halves",
    "task_kind",
    "task_of",
]

TASKS: dict[str, TaskKind] = {
    "slurp_slots": SLURP_SLOTS,
    "slurp_scenario": SLURP_SCENARIO,
    "sciq": SCIQ,
    "cosmosqa": COSMOSQA,
    "own": OWN,
}

AnyTask = Annotated[TaskSection, Chosen("name", TASKS, TaskKind, default="slurp_slots")]
"""The config's section `task`: that of the task it names."""


def task_kind(section: TaskSection) -> TaskKind:
    """What `TASKS`, or a module outside the package, holds under the section's name."""
    return chosen(TASKS, section.name, TaskKind)


@cache
def task_of(section: TaskSection) -> Task:
    """The task that a section describes; made once a process. Raises ValueError for data it cannot use."""
    return task_kind(section).make(section)


def draw_halves(section: TaskSection, seed: int) -> Halves:
    """A and B of a run's seed, or of `split_seed` where the section gives one. Raises ValueError for too few examples."""
    return task_of(section).draw(seed if section.split_seed is None else section.split_seed)
