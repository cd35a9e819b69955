"""What a trial's stages reserve of the cluster, and how many trials it holds at once."""

from collections.abc import Iterable, Mapping

from raw2s.pipeline.answer_stages import Answers, Convert, Labeler
from raw2s.pipeline.fitting_stages import FitTexts
from raw2s.pipeline.labeling_stages import Label
from raw2s.pipeline.pair_stages import Pairs
from raw2s.pipeline.stage import Stage
from raw2s.pipeline.training_stages import Trained

DRIVER_CPU = 0.1
"""Ray CPUs of the process that runs a trial's stages."""


def reserved(stage: Stage) -> dict[str, float]:
    """Ray's resources that a stage needs at once: its workers', or one set of actors of each model that labels in it."""
    if isinstance(stage, Trained):
        training = stage.training
        return {"CPU": training.workers * training.cpus_per_worker, "GPU": training.workers * training.gpus_per_worker}
    total: dict[str, float] = {}
    for labeler in _labelers(stage):
        actors = labeler.actors
        for name, amount in {"CPU": actors.num_cpus, "GPU": actors.num_gpus, **(actors.resources or {})}.items():
            total[name] = total.get(name, 0.0) + amount * actors.replicas[0]
    return total


def _labelers(stage: Stage) -> list[Labeler]:
    if isinstance(stage, (Answers, Convert)):
        return [stage.labeler]
    if isinstance(stage, (Label, FitTexts)):
        return list(stage.scorers.values())
    if isinstance(stage, Pairs):
        return [stage.student, *stage.scorers.values()]
    return []


def trials_at_once(stages: Iterable[Stage], cluster: Mapping[str, float]) -> int:
    """How many trials the cluster holds, each of which runs these stages one after another; at least one.

    Nothing is left for one trial to wait for while another holds it: two that each got half of what they need would wait for ever.
    """
    need: dict[str, float] = {"CPU": DRIVER_CPU}
    for stage in stages:
        for name, amount in reserved(stage).items():
            need[name] = max(need.get(name, 0.0), amount + (DRIVER_CPU if name == "CPU" else 0.0))
    return max(1, min(int(cluster.get(name, 0.0) / amount + 1e-9) for name, amount in need.items() if amount > 0))
