"""What a checkpoint remembers beside the engine's shards. Needs no DeepSpeed: the driver reads it too."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

from raw2s.storage import Place
from raw2s.storage.files import read

WEIGHT = "teacher_weight/"
"""Before a teacher's name, in points of the curve and in metrics: its learned weight."""
SCORE = "validation_score"
"""In points of the curve and in metrics: the task's own metric of the model's answers on devel, where that judges."""
ACCURACY = "validation_accuracy"
"""In points of the curve and in metrics: the share of first choices on devel, of tokens or of classes."""
STANDARD_ERROR = "_se"
"""After `SCORE`, and after `ACCURACY` of classes: its standard error over the examples of devel. Tokens are not independent."""
MODEL = "model"
"""The exported model's folder in a checkpoint, and in the stage's artifact."""
EXPORTED = "exported"
"""Among a checkpoint's metrics: its step where it holds a model, else 0. The latest such is the best: Ray Train ranks by this, for
of two equal scores it would keep the later, and the loop exports the first."""
PROGRESS_FILE = "progress.json"


@dataclass
class Progress:
    """Where a run is: steps done, the points of its curve; how many workers wrote the shards.

    `world_sizes`: [steps done, workers] when training began, and whenever it went on with another number of workers.
    `best`: what was best of the epochs judged so far, more being better: a score, or a loss negated.
    `references`: for every pair of a preference run, in the rows' order, log P of chosen and rejected before the first step.
    `weights`: the teachers', where these are learned.
    """

    step: int = 0
    best: float = -math.inf
    history: list[dict[str, float]] = field(default_factory=list)
    workers: int = 0
    world_sizes: list[list[int]] = field(default_factory=list)
    references: list[list[float]] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def go_on_with(self, workers: int) -> None:
        if workers != self.workers:
            self.world_sizes.append([self.step, workers])
        self.workers = workers


def write_progress(folder: Path, progress: Progress) -> None:
    (folder / PROGRESS_FILE).write_text(json.dumps(asdict(progress)))


def read_progress(checkpoint: Place | None) -> Progress:
    """The progress of a checkpoint; of none, a fresh start."""
    return Progress() if checkpoint is None else Progress(**json.loads(read(checkpoint / PROGRESS_FILE) or b""))
