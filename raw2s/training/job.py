"""What a training run is told: plain data that travels from the driver to the workers."""

from collections.abc import Sequence
from dataclasses import dataclass

from raw2s.config import TrainingConfig
from raw2s.form import FormName
from raw2s.labels.rows import RowKind
from raw2s.methods import LossSection
from raw2s.methods.learned import LearnedWeights
from raw2s.tasks import Example, Scoring


@dataclass(frozen=True, kw_only=True)
class Judge:
    """How a validation scores a model's own answers (`validation_score`)."""

    scoring: Scoring
    examples: Sequence[Example]
    """Of text those that are decoded; of classes all that are validated, in the rows' order."""
    max_new_tokens: int | None
    """Longest answer, end marker included; None for classes."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """All a worker needs; paths are absolute, for a worker runs in a folder of its own."""

    name: str
    """Of the stage, as the board and the model's card call it."""
    model: str
    task: str
    form: FormName
    """What the model gives: text, or logits over `classes`."""
    classes: tuple[str, ...]
    rows: RowKind
    """What the training rows hold; the validation rows hold ground truth of the form."""
    train_file: str
    validation_file: str
    training: TrainingConfig
    loss: LossSection
    seed: int
    chat: bool = False
    """Whether a prompt is a user's message, to be put into the model's chat template."""
    learned: LearnedWeights | None = None
    """Where the teachers' weights are learned too; the training rows then hold each teacher's own label."""
    judge: Judge | None = None
    """Where the score judges epochs, and not the loss."""
