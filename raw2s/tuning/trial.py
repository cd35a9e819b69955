"""One trial, in a process of its own: every stage up to the judged one through the store, its epochs reported to Tune."""

import os
import shutil
from pathlib import Path

from ray import tune
from rich.console import Console

from raw2s.pipeline.artifacts import ArtifactStore
from raw2s.pipeline.execute import build, execute
from raw2s.pipeline.progress import StageDisplay
from raw2s.pipeline.stage import Work, inputs_first
from raw2s.tuning.judged import ReportKept, figures_of
from raw2s.tuning.searched import Sweep
from raw2s.tuning.space import Point
from raw2s.tuning.trials import objectives_of


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
        shutil.rmtree(parts)
    further = objectives_of(sweep.settings, model.metrics)
    tune.report({**counts, **further, **figures_of(model.metrics), "epoch": judged.training.epochs, "finished": True})
