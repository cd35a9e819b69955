"""What a training run is told: plain data that travels from the driver to the workers."""

from dataclasses import dataclass
from typing import Any, Literal

from raw2s.config import TrainingConfig
from raw2s.models import Kind
from raw2s.training.rows import Form


@dataclass(frozen=True)
class LossSettings:
    """The loss of one run; the fields are those of `StudentConfig`, the defaults are plain cross entropy."""

    edl: bool = False
    bridge: Literal["log", "eq8", "equal"] = "log"
    gamma_max: float = 0.0
    gamma_schedule: Literal["linear", "authors"] = "linear"
    gamma_warmup_fraction: float = 1.0
    evidence: Literal["exp", "softplus", "relu"] = "exp"
    form: Literal["expected", "soft"] = "expected"
    kl_weight: float = 0.0
    kl_clamp: float | None = None
    kl_anneal_fraction: float = 1.0
    logit_clamp: float | None = None
    beta: float = 1.0
    label_smoothing: float = 0.0


@dataclass(frozen=True)
class Job:
    """All a worker needs; paths are absolute, for a worker runs in a folder of its own."""

    model: str
    task: str
    kind: Kind
    classes: tuple[str, ...]
    form: Form
    train_file: str
    validation_file: str
    training: TrainingConfig
    loss: LossSettings
    seed: int
    board: Any
    """A `raw2s.pipeline.progress.Board` actor, or None."""
    name: str
    """Of the stage, as the board and the model's card call it."""
