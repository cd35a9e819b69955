"""What can be expected of an ensemble before a student trains: the content of check.json."""

from raw2s.form import FormName
from raw2s.record import Interval, Record


class CheckedTeacher(Record):
    """A model on the validation examples."""

    name: str
    score: float
    ci95: Interval
    ece: float
    """Expected calibration error of its class probabilities; of texts, of its answer's probability against whether that is right."""


class Ensemble(Record):
    """The teachers' answers to the validation examples, combined."""

    name: str
    score: float
    over_best: float
    """Less the score of the best teacher, which is the best on these examples and so flattered."""
    ci95: Interval
    """Of `over_best`."""


class TeacherPair(Record):
    one: str
    other: str
    error_correlation: float | None
    """Phi on the validation examples, by exact correctness; None where undefined, or one is not a model."""
    same_on_b: float | None
    """Share of B to which both give the same answer; needs no truth. None where they share no item."""
    kappa_on_b: float | None
    """Of classes."""


class Outlook(Record):
    run: str
    task: str
    form: FormName
    metric: str
    metric_title: str
    seed: int
    devel_examples: int
    b_examples: int
    teachers: list[CheckedTeacher]
    """The models. Where there is none, nothing is said of devel: no best, ensemble and oracle."""
    best: str | None
    ensembles: list[Ensemble]
    oracle: Ensemble | None
    """Where of all answers, those of every beam included, the best were known."""
    pairs: list[TeacherPair]
    advice: str
