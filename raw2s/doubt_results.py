"""What a run found of its students' doubt: part of results.json."""

from raw2s.record import Interval, Record


class Doubt(Record):
    """How well one measure of a student's doubt tells its errors; means over the seeds.

    `measure`: probability (of its answer: the largest of classes; of text the mean log-probability of its tokens), entropy, vacuity
    (K/S, of an evidential student) and mutual_information (of its Dirichlet, or between an ensemble's members), of text as means over
    the tokens; sequence_probability (text: of the whole answer); dropout_entropy and dropout_mutual_information (of the mean prediction
    of passes with dropout, and between prediction and pass); teacher_disagreement (the share of pairs of tested teachers whose answers
    differ), seed_disagreement (the share of the other seeds' students whose answer differs). An answer is an error unless the metric
    counts it as it counts gold itself.
    """

    measure: str
    auroc: float | None
    """P(an error is more doubtful than a right answer); None where one seed has no errors, or nothing else."""
    auroc_ci95: Interval
    aurc: float
    """Area under the risk-coverage curve: the lower the better; the share of errors for a measure that knows nothing."""
    aurc_ci95: Interval
    at_80: float
    """The score of the most certain 80 % of the answers."""
    at_80_ci95: Interval
    gain_80: float
    """By how much that is more than the score of all: what abstaining from the most doubtful fifth gives."""
    gain_80_ci95: Interval
    risk: list[float]
    """Share of errors in the most certain 5, 10, ..., 100 % of the answers."""


class CalibrationError(Record):
    """Means over the seeds; NLL in nats, None where a right answer had probability 0."""

    nll: float | None
    nll_ci95: Interval
    brier: float
    """Squared error summed over the classes, in [0, 2]."""
    brier_ci95: Interval
    ece: float
    """Expected calibration error, 15 bins of equal width (Guo et al., 2017); of few examples too large."""
    rms_ce: float
    """Root of the mean square over 15 bins of as many answers each, without what chance adds (Bröcker, 2012; Kumar et al., 2019)."""


class ReliabilityBin(Record):
    answers: int
    confidence: float
    accuracy: float


class Calibration(Record):
    """Of a classifier's probabilities, as they are and after temperature scaling.

    Of text, of the probability of its own answer against whether that is right: yes or no, as two classes; without a temperature.
    """

    as_is: CalibrationError
    temperature: list[float]
    """Fitted on the validation examples, a seed each; above 1 the model was too sure."""
    scaled: CalibrationError | None
    reliability: list[ReliabilityBin]
    """As they are, all seeds together, by confidence."""


class Ensemble(Record):
    """The mean of the probabilities that one entry's students of all seeds predict."""

    members: int
    score: float
    ci95: Interval
    doubt: list[Doubt]
    calibration: Calibration
