"""The stages of one seed, by what the results call them."""

from collections.abc import Mapping
from dataclasses import dataclass

from raw2s.losses import EvidenceOf
from raw2s.methods import LossSection, MethodSection, evidence_by, loss_of, method_of
from raw2s.pipeline.answer_stages import Answers, Given
from raw2s.pipeline.data_stages import Examples
from raw2s.pipeline.doubt_stages import AnswerDoubts, ClassLogits, DropoutDoubts
from raw2s.pipeline.labeling_stages import Label
from raw2s.pipeline.stage import Stage, inputs_first
from raw2s.pipeline.testing_stages import Test
from raw2s.pipeline.training_stages import TrainPreference, TrainStudent
from raw2s.results import Weighting


@dataclass(frozen=True, kw_only=True)
class PlannedStudent:
    """One row of the results: a method's student, or the same followed by cDPO."""

    entry: int
    """Its number in the config's `methods`."""
    method: MethodSection
    name: str
    """As results.json names it: `bayesian+cdpo`."""
    title: str
    """As tables write it."""
    stage: TrainStudent | TrainPreference
    test: Test
    doubt: ClassLogits | AnswerDoubts | None = None
    """Where `evaluation.doubt` asks for it."""
    dropout: DropoutDoubts | None = None
    """Where `evaluation.dropout_passes` does."""

    @property
    def dirichlet(self) -> LossSection | None:
        """The loss that says how its logits are read as a Dirichlet; None where they are a softmax's, as after cDPO."""
        learned = isinstance(self.stage, TrainStudent) and loss_of(self.method.loss).evidence is not None
        return self.method.loss if learned else None

    @property
    def evidence(self) -> EvidenceOf | None:
        """What `dirichlet` makes of logits."""
        return evidence_by(self.dirichlet)

    @property
    def before_preference(self) -> TrainStudent:
        """The student that learned from labels: what cDPO starts from, or the row's own."""
        return self.stage.student if isinstance(self.stage, TrainPreference) else self.stage

    @property
    def weighting(self) -> Weighting:
        weights = self.before_preference.weights
        if method_of(self.method).learned is not None:
            return "learned"
        if weights == "devel":
            return "devel"
        return "equal" if len({weight for weight in weights.values() if weight > 0}) == 1 else "given"


@dataclass(frozen=True, kw_only=True)
class SeedPlan:
    """The stages of one seed, by what the results call them."""

    seed: int
    testset: Examples
    validation: Examples
    label: Label
    devel: Mapping[str, Answers]
    """What the teachers that are models say of the validation examples; no part of a run unless something is fitted to it."""
    teachers: Mapping[str, Test]
    """The tests of the teachers that are models, by name."""
    given: Mapping[str, Given]
    """The teachers without a model, which answer no test example."""
    ceiling: Test | None
    """None where B lacks answers."""
    students: list[PlannedStudent]

    @property
    def tests(self) -> list[Test]:
        """Every test: teachers, ceiling, students; a student that two rows share once."""
        ceiling = [] if self.ceiling is None else [self.ceiling]
        every = [*self.teachers.values(), *ceiling, *(student.test for student in self.students)]
        return list({test.name: test for test in every}.values())

    def in_order(self) -> list[Stage]:
        """Every stage once, inputs first."""
        models = [test.labeler.model for test in self.teachers.values()]
        asked = [stage for student in self.students for stage in (student.doubt, student.dropout)]
        doubts = [stage for stage in asked if stage is not None]
        return inputs_first([*models, self.label, *self.tests, *doubts])
