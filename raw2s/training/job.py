"""What a training run is told: plain data that travels from the driver to the workers."""

from dataclasses import dataclass

from raw2s.config import TrainingConfig
from raw2s.form import FormName
from raw2s.labels.rows import RowKind
from raw2s.methods import LossSection
from raw2s.methods.learned import LearnedWeights


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
