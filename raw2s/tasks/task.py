"""What a task is: two halves of training data, what a model reads and writes, how it is scored. `raw2s.tasks.TASKS` has them all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from raw2s.evaluation.metrics import Counts, Metric
from raw2s.form import FormName
from raw2s.section import Positive, Section

Part = Literal["validation", "test"]


class TaskSection(Section):
    """What every task may be told; a task's own section adds its knobs."""

    name: str = "slurp_slots"
    """What is learned: slurp_slots, slurp_scenario, sciq, cosmosqa, own, or module:name of a task outside the package."""
    split_seed: int | None = None
    """Fixes which examples are A and which B apart from the training seeds; null lets every seed of the run draw its own."""
    n_teacher: Positive | None = None
    """Examples in A, on which the teachers learn from ground truth; null takes half of those that have an answer."""
    n_student: Positive | None = None
    """Examples in B, which the teachers label and the student learns from; null takes the rest."""
    n_validation: Positive | None = None
    """Examples on which checkpoints are chosen; null takes all."""
    n_test: Positive | None = None
    """Examples on which every model is tested; null takes all."""


class Example(TypedDict):
    """All that later stages see of a task.

    `target` is what a model should write: a text, or the name of a class. `gold` is what the metric compares with a parsed
    answer. Both are None for an example of B without an answer.
    """

    id: int
    prompt: str
    target: str | None
    gold: Any


@dataclass(frozen=True)
class Halves:
    """A, which the teachers learn from, and B, which they label for the student."""

    teacher: list[Example]
    student: list[Example]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What a model's answers are worth, in the examples' order."""

    parsed: list[Any]
    """None where an answer is not in the asked format."""
    predicted: list[Any]
    """The same, such an answer being what the task scores it as."""
    counts: Counts
    """The metric's, (U, C)."""
    score: float


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How answers are scored, by tests and by validations: `Task` says what the fields are. Needs none of the task's data."""

    metric: Metric
    parse: Callable[[str], Any | None]
    nothing: Any

    def score(self, gold: Sequence[Any], texts: Sequence[str]) -> Scored:
        """What models wrote, or the names of the classes they chose, against the examples' gold."""
        parsed = [self.parse(text) for text in texts]
        predicted = [self.nothing if answer is None else answer for answer in parsed]
        counts = self.metric.counts(gold, predicted)
        return Scored(parsed=parsed, predicted=predicted, counts=counts, score=float(self.metric.score(counts.mean(axis=0))))


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task with its settings, as plain data and functions."""

    name: str
    form: FormName
    classes: tuple[str, ...]
    """Their names in the order of a classifier's logits; empty for text."""
    metric: Metric
    parse: Callable[[str], Any | None]
    """What a model wrote, in gold's form; None where it is not in the asked format."""
    nothing: Any
    """What an unparsable answer is scored as."""
    draw: Callable[[int], Halves]
    """A and B for a seed; raises ValueError, naming the keys, where there are too few examples."""
    held_out: Callable[[Part], list[Example]]
    """Validation or test examples, the same for every seed; raises ValueError as `draw` does."""
    credit: str
    """Who made the data, and under which licence: at the foot of the report."""
    version: int = 1
    """Raised when `parse` or the metric says otherwise of the same answer: it is in the key of all that uses the task."""
    chat: bool = False
    """Whether a prompt is a user's message, to be put into each model's own chat template."""
    template: str = "{prompt}"
    """How a row becomes a prompt (`raw2s.tasks.template`), for who asks a student of the task; as it is, a row holds its prompt."""
    notes: tuple[str, ...] = ()
    """What a reader of the results should know of the data, a line each."""

    @property
    def content(self) -> list[Any]:
        """What of a task is in an artifact's key; its examples are there by themselves."""
        return [self.name, self.version, self.form, self.classes, self.chat]

    @property
    def scoring(self) -> Scoring:
        """All of a task that it takes to score answers."""
        return Scoring(metric=self.metric, parse=self.parse, nothing=self.nothing)

    def __post_init__(self) -> None:
        if (self.form == "classes") != (len(self.classes) > 1):
            raise ValueError(
                f"a task of form {self.form} with {len(self.classes)} classes; give two or more for classes, none for text"
            )


@dataclass(frozen=True, kw_only=True)
class TaskKind:
    """What `TASKS` holds: the section of a task's knobs, and how it becomes a `Task`."""

    section: type[TaskSection]
    make: Callable[[Any], Task]
    """From its section; raises ValueError, in one line that names the key and what to do, for data it cannot use."""
