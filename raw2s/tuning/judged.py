"""By what trials are judged: one figure, the same of a running, stopped, finished and found one.

Ray Train's controller imports this and no more of us: every trial starts one.
"""

import math
from collections.abc import Mapping
from typing import Any

from ray.tune.integration.ray_train import TuneReportCallback

from raw2s.training.progress import ACCURACY, SCORE, STANDARD_ERROR

JUDGED = "devel_score"
"""By which trials are judged, `figures_of` the epoch that is kept."""
JUDGED_SE = JUDGED + STANDARD_ERROR
"""Its standard error over the examples of devel."""
MERIT = "merit"
"""Decides which epoch is kept, more being better: the score where training judges by it, else the validation loss negated."""


def figures_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """What an epoch, or a trained model, is judged by, and its standard error.

    It is the task's own score on devel where training judged by it, else the accuracy.
    """
    name = SCORE if SCORE in metrics else ACCURACY
    return {JUDGED: float(metrics[name]), JUDGED_SE: float(metrics[name + STANDARD_ERROR])}


class ReportKept(TuneReportCallback):
    """Tells Tune after every epoch but the last what would be kept if training ended there.

    The last epoch's figure is reported with the finished artifact: Tune may end a trial that reports, and its model would be lost.
    """

    def __init__(self, epochs: int, counts: dict[str, int]) -> None:
        super().__init__()
        self.epochs, self.counts = epochs, counts
        self.kept: dict[str, float] = {MERIT: -math.inf}

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """Called in Ray Train's controller."""
        if ACCURACY not in metrics[0]:
            return  # a checkpoint between epochs
        self.kept = kept_of(self.kept, metrics[0])
        if metrics[0]["epoch"] < self.epochs:
            told = {**self.counts, **metrics[0], JUDGED: self.kept[JUDGED], JUDGED_SE: self.kept[JUDGED_SE], "finished": False}
            super().after_report(run_context, [told], None)


def kept_of(kept: Mapping[str, float], epoch: Mapping[str, float]) -> dict[str, float]:
    """The judged figure, its standard error and what decides what is kept, of the better of two epochs.

    Of equals the first, as training keeps it.
    """
    merit = epoch[SCORE] if SCORE in epoch else -epoch["validation_loss"]
    return {MERIT: merit, **figures_of(epoch)} if merit > kept[MERIT] else dict(kept)
