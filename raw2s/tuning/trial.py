"""One trial, in a process of its own: every stage up to the judged one through the store, its epochs reported to Tune."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from rich.console import Console

from raw2s.pipeline.artifacts import ArtifactStore
from raw2s.pipeline.execute import build, execute
from raw2s.pipeline.progress import StageDisplay
from raw2s.pipeline.stage import Work, inputs_first
from raw2s.training.progress import ACCURACY, SCORE
from raw2s.tuning.reading import Sweep
from raw2s.tuning.space import Point
from raw2s.tuning.trials import JUDGED, JUDGED_SE, figures_of, objectives_of

MERIT = "merit"
"""Decides which epoch is kept, more being better: the score where training judges by it, else the validation loss negated."""


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


def run_trial(point: Point, *, sweep: Sweep, store: str, folder: str, started_in: str) -> None:
    """The stages of `sweep` at `point`. Every epoch reports what would be kept, the end what is."""
    os.chdir(started_in)  # Tune runs trials in folders of their own, and paths of a config may be relative
    config = sweep.config(point)
    judged = sweep.judged(point)
    artifacts = ArtifactStore(Path(store))
    counts = {"found": len(inputs_first([judged])), "made": 0}
    model = artifacts.find(judged.kind, judged.key, print)
    if model is None:
        with StageDisplay(Console(quiet=True)) as display:
            one_by_one = config.ray.model_copy(update={"parallel_stages": 1})  # a trial holds no more than its largest stage
            needed = inputs_first(judged.inputs.values())
            done = execute(needed, store=artifacts, display=display, ray_config=one_by_one)
        found = sum(stage.cached for stage in done.values())
        counts = {"found": found, "made": len(done) - found + 1}
        # A stopped trial's checkpoints stay with the sweep: resumed by another run they would skip the epochs Tune waits for.
        parts = Path(folder) / "checkpoints" / tune.get_context().get_trial_id()
        parts.mkdir(parents=True)
        inputs = {stage.key: done[stage.name].artifact for stage in judged.inputs.values()}
        report = ReportKept(judged.training.epochs, counts)
        model = build(judged, artifacts, Work(inputs=inputs, out=parts, parts=parts, callbacks=[report]))
    further = objectives_of(sweep.settings, model.metrics)
    tune.report({**counts, **further, **figures_of(model.metrics), "epoch": judged.training.epochs, "finished": True})
