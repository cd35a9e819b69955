"""The config's lists of teacher weights by teacher's name, for those who read them."""

from typing import Literal

from raw2s.config import RunConfig
from raw2s.methods import GivenWeights
from raw2s.methods.method import Weights
from raw2s.tasks import Task


def named_weights(config: RunConfig, use: Literal["loss", "joint", "preference"]) -> dict[str, float]:
    return dict(zip((t.name for t in config.teachers), config.teacher_weights(use), strict=True))


def scoring_weights(config: RunConfig, use: Literal["joint", "preference"]) -> dict[str, float]:
    """Of the teachers that score text, which those without a model do not; renormalized over them."""
    weights, models = named_weights(config, use), [teacher.name for teacher in config.models]
    scoring = {name: weights[name] for name in models}
    if len(scoring) == len(weights):
        return weights
    return {name: weight / sum(scoring.values()) for name, weight in scoring.items()}


def given_weights(config: RunConfig, task: Task) -> GivenWeights:
    """What the methods may read; `joint` of the teachers that score, where labels are texts."""
    loss: Weights = "devel" if config.weights.loss == "devel" else named_weights(config, "loss")
    joint = scoring_weights(config, "joint") if task.form == "text" and config.models else named_weights(config, "joint")
    return GivenWeights(names=tuple(teacher.name for teacher in config.teachers), loss=loss, joint=joint)
