"""What a checkpoint remembers beside the engine's shards. Needs no DeepSpeed: the driver reads it too."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

WEIGHT = "teacher_weight/"
"""Before a teacher's name, in points of the curve and in metrics: its learned weight."""
MODEL = "model"
"""The exported model's folder in a checkpoint, and in the stage's artifact."""
_FILE = "progress.json"


@dataclass
class Progress:
    """Where a run is: steps done, the lowest validation loss so far, the points of its curve; how many workers wrote the shards.

    `references`: for every pair of a preference run, in the rows' order, log P of chosen and rejected before the first step.
    `weights`: the teachers', where these are learned.
    """

    step: int = 0
    best: float = math.inf
    history: list[dict[str, float]] = field(default_factory=list)
    workers: int = 0
    references: list[list[float]] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)


def write_progress(folder: Path, progress: Progress) -> None:
    (folder / _FILE).write_text(json.dumps(asdict(progress)))


def read_progress(checkpoint: Path | None) -> Progress:
    """The progress of a checkpoint; of none, a fresh start."""
    return Progress() if checkpoint is None else Progress(**json.loads((checkpoint / _FILE).read_text()))
