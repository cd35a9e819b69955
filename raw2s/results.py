"""What a run found: the content of results.json, written and read by one class."""

from pathlib import Path
from typing import Literal

from raw2s.doubt_results import Calibration, Doubt, Ensemble
from raw2s.form import FormName
from raw2s.record import Interval, Record

Verdict = Literal["as the paper", "the reverse", "cannot be told"]
Weighting = Literal["equal", "given", "devel", "learned"]
"""Of the teachers that a student learned from: all alike, as the config says, fitted on devel, learned while it trained."""


class System(Record):
    """One tested model; scores are fractions, means over the seeds."""

    stage: str
    """The stage that the model came out of, without the seed."""
    title: str
    form: FormName
    score: float
    ci95: Interval
    per_seed: list[float]
    standard_error: float | None = None
    """Of the mean over the seeds, from their spread alone; None of one seed."""
    empty: float | None = None
    """Text: share of the answers that name nothing, unparsable ones counted in."""
    unparsable: float | None = None


class OnB(Record):
    """A teacher without a model, against B's ground truth; counts are a seed each. The score is None where B has no answers."""

    score: float | None
    ci95: Interval
    per_seed: list[float]
    items: list[int]
    missing: list[int]
    ids_not_in_b: list[int]
    annotators: list[int]


class Teacher(Record):
    """A model has been tested and has `score` and what follows; a teacher without a model has `on_b` instead."""

    name: str
    stage: str
    title: str
    form: FormName
    score: float | None = None
    ci95: Interval = (None, None)
    per_seed: list[float] = []
    standard_error: float | None = None
    empty: float | None = None
    unparsable: float | None = None
    gap_is_noise: bool = False
    """Whether the gap to the ceiling is within the noise of the test set."""
    on_b: OnB | None = None


class Ceiling(System):
    name: str
    """The student's model."""


class Student(System):
    method: str
    """`joint+edl+cdpo`: the method, another loss than its usual one, and the preference loss."""
    aux: bool
    confidence: bool
    pgr: float | None
    """None where undefined: no ceiling, no tested teacher, or a teacher at least as good as the ceiling."""
    pgr_ci95: Interval
    """Over the test examples, and of several seeds over the seeds too."""
    pgr_ci95_examples: Interval = (None, None)
    """Over the test examples alone, each seed at its equal weight: these trainings as they are. Of one seed it is `pgr_ci95`."""
    pgr_by_teacher: dict[str, float | None]
    learned_from: list[str]
    """The tested teachers whose labels it learned, over which `pgr` is the mean: of a single teacher's student, that teacher."""
    weighting: Weighting = "equal"
    loss_values: dict[str, float] = {}
    """The numbers that the config gave its loss: `gamma_max`, `kl_weight`."""
    best_teacher: str | None
    """The one of `learned_from` with the highest score."""
    over_best: float | None
    """The student's score less that teacher's."""
    over_best_ci95: Interval
    over_best_p: float | None = None
    """Of no difference to it, two-sided, corrected (Holm) for all students."""
    doubt: list[Doubt] = []
    """Where `evaluation.doubt` asks for it."""
    calibration: Calibration | None = None
    """The same."""
    ensemble: Ensemble | None = None
    """The same, of several seeds; classes only."""

    @property
    def settings(self) -> str:
        """`soft labels and auxiliary loss`."""
        return ("soft" if self.confidence else "hard") + " labels" + (" and auxiliary loss" if self.aux else "")

    @property
    def label(self) -> str:
        """The name that tells this student from all others of the run."""
        return f"{self.title} with {self.settings}"


class Difference(Record):
    """Of two students of a run."""

    one: str
    """The stage that it came out of, without the seed; so too the other."""
    other: str
    difference: float
    """The first one's score less the other's."""
    ci95: Interval
    p: float
    """Two-sided, of no difference."""
    p_holm: float
    """Corrected (Holm) for all pairs of students."""
    sign_p: float
    """Of the two-sided sign test on the examples' scores, of several seeds their means; of one seed's correctness McNemar's exact test.

    It holds the test examples alone: another training seed may turn it, where `p` over several seeds holds these too."""
    sign_p_holm: float
    """Corrected as `p_holm`."""


class Claim(Record):
    """A statement of the paper, and what the run says of it."""

    statement: str
    """It holds where the effect has the sign of the paper's; of none in the paper, where it is above 0."""
    paper: float | None
    """The effect in the paper's tables, over the methods and settings that the run has; None where it gives no figure."""
    effect: float
    """In this run: a mean of differences between two students that differ in one thing."""
    ci95: Interval
    p: float
    """Two-sided, of no effect."""
    p_holm: float
    """Corrected (Holm) for all claims of the run."""
    verdict: Verdict
    """By `p_holm`."""


class SomeTeachers(Record):
    """The students of one method that learned from equally many of the run's teachers, as their mean."""

    method: str
    """As `Student.label` has it."""
    weighting: Weighting
    teachers: int
    stages: list[str]
    """Of the students, as `Student.stage`."""
    score: float
    ci95: Interval
    """Over test examples and seeds, not over which teachers they were."""
    pgr: float | None
    """The mean of the students' own; None where one has none."""

    @property
    def label(self) -> str:
        return self.method + {"devel": ", weights fitted on devel", "given": ", given weights"}.get(self.weighting, "")


class Agreement(Record):
    """Of a tested model and a teacher on the test set: shares of the examples, means over the seeds."""

    stage: str
    """The one that the model came out of, without the seed; it may be the teacher itself."""
    teacher: str
    """The teacher's stage."""
    same: float
    """Both give the same answer, as the task reads it."""
    both_wrong: float
    """Neither gives gold."""


class Baseline(Record):
    """The constant answer that scores best on the validation examples, and what it scores on the test set."""

    answer: str
    score: float


class StageRecord(Record):
    name: str
    key: str
    cached: bool
    seconds: float


class Results(Record):
    """The whole of results.json."""

    run: str
    task: str
    form: FormName
    metric: str
    metric_title: str
    credit: str
    licences: list[str] = []
    """Of the models, a line each: the name, and the licence where its card says one."""
    notes: list[str] = []
    """What a reader should know of the data, a line each."""
    truth: list[str] = []
    """Which ground truth the run saw and what it decided there, a sentence each."""
    seeds: list[int]
    test_examples: int
    teachers: list[Teacher]
    ceiling: Ceiling | None
    baseline: Baseline | None
    students: list[Student]
    differences: list[Difference] = []
    """Of every two students."""
    claims: list[Claim] = []
    """Those of the paper that the students can answer."""
    doubt_claims: list[Claim] = []
    """What doubt is worth, where it was asked for: `as the paper` where the statement holds. Corrected together."""
    by_teachers: list[SomeTeachers] = []
    """Of a run whose students learned from several numbers of teachers; the smallest first, method by method."""
    agreements: list[Agreement] = []
    """Of every tested model with every tested teacher."""
    visible: float | None = None
    """The smallest true difference to its best teacher that a run of this size finds in four of five, uncorrected; of the worst case."""
    visible_between: float | None = None
    """The same of two students; None where there is one."""
    environment: dict[str, str]
    stages: list[StageRecord]
    finished: str = ""
    command: str = ""

    @property
    def tested(self) -> list[Teacher]:
        """The teachers that have a score."""
        return [teacher for teacher in self.teachers if teacher.score is not None]

    @property
    def given(self) -> list[Teacher]:
        """The teachers without a model."""
        return [teacher for teacher in self.teachers if teacher.on_b is not None]

    @property
    def noisy(self) -> list[str]:
        """The teachers whose gap to the ceiling is not distinguishable from none on this test set."""
        return [teacher.name for teacher in self.teachers if teacher.gap_is_noise]

    def write(self, folder: Path) -> Path:
        """`folder/results.json`; returns its path."""
        file = folder / "results.json"
        file.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return file

    @classmethod
    def read(cls, folder: Path) -> "Results":
        """Of a finished run. Raises OSError where there is none, ValueError where it was written by another version."""
        return cls.model_validate_json((folder / "results.json").read_text(encoding="utf-8"))
