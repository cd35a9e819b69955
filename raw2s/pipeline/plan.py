"""The stages of one seed, by constructor calls; nothing runs until `raw2s.pipeline.execute`.

    split ─┬─ teacher/* ─┬─ test/*
           │             └─ beams/* or classes/* ──┬─ label ── student/* ─┬─ test/*
           ├─ labels/* ────────────────────────────┘                      └─ pairs/* ── cdpo/* ── test/*
           └─ ceiling ── test/*

The splits of validation and test are stages of their own, so that testing on more examples trains nothing again. `labels/*` are the
teachers without a model. Between `label` and a student of classes may stand `combine/*` (crowd methods), and beside it `fit`
(temperatures and weights), made from the teachers' answers on the validation examples (`devel/*`) or their scores of the true texts.
"""

from dataclasses import dataclass, replace

from raw2s.config import Decoding, RunConfig
from raw2s.methods import MethodSection, label_of, loss_of, method_of, title_of
from raw2s.models import Precision
from raw2s.pipeline.answer_stages import Labeler
from raw2s.pipeline.combining_stages import Combine
from raw2s.pipeline.doubt_stages import AnswerDoubts, ClassLogits, DropoutDoubts
from raw2s.pipeline.labeling_stages import Label
from raw2s.pipeline.model import Model
from raw2s.pipeline.pair_stages import Pairs
from raw2s.pipeline.seed_plan import PlannedStudent, SeedPlan
from raw2s.pipeline.teacher_plan import TeacherPlan
from raw2s.pipeline.testing_stages import Test
from raw2s.pipeline.training_stages import TrainPreference, TrainStudent
from raw2s.pipeline.weights import given_weights, scoring_weights


def plan_stages(config: RunConfig, seed: int) -> SeedPlan:
    """All stages of `config` for one seed. Raises ValueError for examples that cannot be drawn."""
    return _Planner(config=config, seed=seed).plan()


@dataclass(frozen=True, kw_only=True)
class _Planner(TeacherPlan):
    """The students on top of the labels, and every test."""

    def test(self, name: str, labeler: Labeler) -> Test:
        evaluation = self.config.evaluation
        return Test(
            name=self.named(f"test/{name}"),
            examples=self.testset,
            labeler=labeler,
            task=self.task,
            metric=self.task.metric.name,
            decoding=self.decoding(evaluation.beams, evaluation.batch_size),
        )

    def doubt(self, student: PlannedStudent) -> ClassLogits | AnswerDoubts | None:
        """How certain a student is, beside its test."""
        if not self.config.evaluation.doubt:
            return None
        test, labeler = student.test, student.test.labeler
        name = test.name.replace("test/", "doubt/", 1)
        if self.task.form == "classes":
            return ClassLogits(
                name=name,
                testset=self.testset,
                validation=self.validation,
                labeler=labeler,
                task=self.task,
                decoding=test.decoding,
            )
        return AnswerDoubts(
            name=name,
            testset=self.testset,
            test=test,
            labeler=labeler,
            loss=student.dirichlet,
            decoding=Decoding(batch_size=test.decoding.batch_size),
        )

    def dropout(self, student: PlannedStudent) -> DropoutDoubts | None:
        """The same with dropout on."""
        if not self.config.evaluation.dropout_passes:
            return None
        test = student.test
        return DropoutDoubts(
            name=test.name.replace("test/", "dropout/", 1),
            testset=self.testset,
            test=test,
            labeler=test.labeler,
            loss=student.dirichlet,
            decoding=Decoding(batch_size=test.decoding.batch_size),
            passes=self.config.evaluation.dropout_passes,
        )

    def student(self, index: int, method: MethodSection) -> TrainStudent:
        crowd = method_of(method).crowd
        own = self.config.of(method)
        weights = method_of(method).weights(method, given_weights(own, self.task))
        labels: Label | Combine = self.label
        if crowd is not None:
            name = self.named(f"combine/{crowd}")
            labels = Combine(
                name=name, split=self.split, label=self.label, given=self.given, task=self.task, method=crowd, seed=self.seed
            )
        fits = crowd is None and (weights == "devel" or self.config.labeling.calibrate is not None)
        return TrainStudent(
            name=self.named(f"student/{index}-{label_of(method).replace(':', '-')}"),
            task=self.task,
            split=self.split,
            validation=self.validation,
            labels=labels,
            fitted=self.fitted if fits else None,
            method=method.model_copy(update={"cdpo": False}),
            weights=weights,
            training=own.student_training,
            judging=self.judging(own.student_training),
            seed=self.seed,
            pretrained=self.config.student.model,
            fingerprint=self.fingerprint(self.config.student.model),
        )

    def preference(self, index: int, method: MethodSection, student: TrainStudent) -> TrainPreference:
        own = self.config.of(method)
        preference = own.preference
        pairs = Pairs(
            name=self.named(f"pairs/{index}"),
            split=self.split,
            student=self.decoded(student, self.config.labeling.precision),
            scorers=self.labelers,
            weights=scoring_weights(own, "preference"),
            score=preference.score,
            prompts=preference.prompts,
            task=self.task,
            decoding=self.decoding(preference.beams, self.config.labeling.batch_size),
            tolerance=self.tolerance,
        )
        return TrainPreference(
            name=self.named(f"cdpo/{index}"),
            task=self.task,
            validation=self.validation,
            student=student,
            pairs=pairs,
            loss=preference.loss,
            training=preference.training,
            judging=self.judging(preference.training),
            seed=self.seed,
        )

    def decoded(self, model: Model, precision: Precision) -> Labeler:
        """A model of the student's kind on the student's actors."""
        return self.labeler("student", model, self.config.student, precision)

    def plan(self) -> SeedPlan:
        students: list[PlannedStudent] = []
        precision = self.config.evaluation.precision
        for index, method in enumerate(self.config.methods):
            made = self.student(index, method)
            # The same student, with cDPO, is one artifact.
            made = next((s.stage for s in students if isinstance(s.stage, TrainStudent) and s.stage.key == made.key), made)
            rows: list[tuple[str, str, TrainStudent | TrainPreference]] = [(label_of(method), title_of(method), made)]
            if method.cdpo:
                preferred = self.preference(index, method, made)
                then = loss_of(preferred.loss).title(preferred.loss)
                rows.append((f"{label_of(method)}+{preferred.loss.name}", f"{title_of(method)}, then {then}", preferred))
            for name, title, stage in rows:
                test = self.test(stage.name.partition("@")[0], self.decoded(stage, precision))
                planned = PlannedStudent(entry=index, method=method, name=name, title=title, stage=stage, test=test)
                students.append(replace(planned, doubt=self.doubt(planned), dropout=self.dropout(planned)))
        training = self.config.ceiling_training or self.config.student_training
        model = self.trained("ceiling", "student", training, self.config.student.model)
        ceiling = self.test("ceiling", self.decoded(model, precision))
        labeled = all(example["target"] is not None for example in self.split.drawn.parts["student"])
        return SeedPlan(
            seed=self.seed,
            testset=self.testset,
            validation=self.validation,
            label=self.label,
            devel=self.devel,
            teachers={
                teacher.name: self.test(
                    f"teacher/{teacher.name}",
                    self.labeler(teacher.name, self.labelers[teacher.name].model, teacher, precision),
                )
                for teacher in self.config.models
            },
            given=self.given,
            ceiling=ceiling if labeled else None,
            students=students,
        )
