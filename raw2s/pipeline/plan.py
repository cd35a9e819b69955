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
from functools import cached_property
from typing import Literal

from raw2s.config import Decoding, RunConfig, Tolerance, TrainingConfig
from raw2s.methods import MethodSection, label_of, loss_of, method_of, title_of
from raw2s.models import Precision
from raw2s.models.source import model_fingerprint
from raw2s.pipeline.answer_stages import Answered, Answers, Convert, Given, Labeler
from raw2s.pipeline.combining_stages import Combine
from raw2s.pipeline.data_stages import Drawn, Examples
from raw2s.pipeline.doubt_stages import AnswerDoubts, ClassLogits
from raw2s.pipeline.fitting_stages import FitClasses, FitOnDevel, FitTexts
from raw2s.pipeline.labeling_stages import Label
from raw2s.pipeline.model import AsItIs, Model
from raw2s.pipeline.pair_stages import Pairs
from raw2s.pipeline.seed_plan import PlannedStudent, SeedPlan
from raw2s.pipeline.testing_stages import Test
from raw2s.pipeline.training_stages import Judging, TrainOnGroundTruth, TrainPreference, TrainStudent
from raw2s.pipeline.weights import given_weights, scoring_weights
from raw2s.section import Actors, part
from raw2s.tasks import Task, draw_halves, task_of
from raw2s.teachers import ModelSection, TeacherSection, teacher_kind


def plan_stages(config: RunConfig, seed: int) -> SeedPlan:
    """All stages of `config` for one seed. Raises ValueError for examples that cannot be drawn."""
    return _Planner(config=config, seed=seed).plan()


@dataclass(frozen=True, kw_only=True)
class _Planner:
    """One seed of a config, while its stages are made: what several of them need is made once."""

    config: RunConfig
    seed: int

    @cached_property
    def task(self) -> Task:
        return task_of(self.config.task)

    def named(self, name: str) -> str:
        """With the seed, where there are several: names are unique in a run."""
        return f"{name}@{self.seed}" if len(self.config.seeds) > 1 else name

    @cached_property
    def split(self) -> Examples:
        halves = draw_halves(self.config.task, self.seed)
        return Examples(name=self.named("split"), drawn=Drawn({"teacher": halves.teacher, "student": halves.student}))

    @cached_property
    def validation(self) -> Examples:
        return Examples(name="validation", drawn=Drawn({"validation": self.task.held_out("validation")}))

    @cached_property
    def testset(self) -> Examples:
        return Examples(name="testset", drawn=Drawn({"test": self.task.held_out("test")}))

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        return {}

    def fingerprint(self, model: str) -> str:
        """Of a model's files, which are read once a plan: the student's stand behind the ceiling and every method."""
        if model not in self.fingerprints:
            self.fingerprints[model] = model_fingerprint(model)
        return self.fingerprints[model]

    @property
    def tolerance(self) -> Tolerance:
        return part(self.config.labeling, Tolerance)

    def decoding(self, beams: int, batch_size: int) -> Decoding:
        if self.task.form == "classes":
            return Decoding(batch_size=batch_size)
        return Decoding(beams=beams, max_new_tokens=self.config.labeling.max_new_tokens, batch_size=batch_size)

    def judging(self, training: TrainingConfig) -> Judging | None:
        if training.judge == "loss":
            return None
        longest = self.config.labeling.max_new_tokens if self.task.form == "text" else None
        return Judging(metric=self.task.metric.name, max_new_tokens=longest)

    def labeler(self, name: str, model: Model, section: Actors, precision: Precision) -> Labeler:
        """`auto` becomes what it means on these actors, so that a GPU's bf16 and a CPU's fp32 share no key."""
        actors = part(section, Actors)
        resolved: Literal["fp32", "bf16"] = ("bf16" if actors.num_gpus else "fp32") if precision == "auto" else precision
        return Labeler(name=name, model=model, precision=resolved, actors=actors)

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

    def trained(self, name: str, half: Literal["teacher", "student"], training: TrainingConfig, pretrained: str) -> Model:
        return TrainOnGroundTruth(
            name=self.named(name),
            task=self.task,
            split=self.split,
            validation=self.validation,
            part=half,
            training=training,
            judging=self.judging(training),
            seed=self.seed,
            pretrained=pretrained,
            fingerprint=self.fingerprint(pretrained),
        )

    def teacher_model(self, teacher: ModelSection) -> Model:
        if teacher.fine_tune:
            rate = teacher.learning_rate or self.config.teacher_training.learning_rate
            training = self.config.teacher_training.model_copy(update={"learning_rate": rate})
            return self.trained(f"teacher/{teacher.name}", "teacher", training, teacher.model)
        return AsItIs(
            name=self.named(f"teacher/{teacher.name}"),
            task=self.task,
            split=self.split,
            pretrained=teacher.model,
            fingerprint=self.fingerprint(teacher.model),
            instruction=teacher.instruction,
            shots=teacher.shots,
            seed=self.seed,
        )

    @cached_property
    def labelers(self) -> dict[str, Labeler]:
        """The teachers that are models."""
        return {
            teacher.name: self.labeler(teacher.name, self.teacher_model(teacher), teacher, self.config.labeling.precision)
            for teacher in self.config.models
        }

    def answers(self, teacher: ModelSection, name: str, examples: Examples, half: Literal["student", "validation"]) -> Answers:
        labeler, converted = self.labelers[teacher.name], None
        if teacher.backend == "ctranslate2":
            converted = Convert(name=self.named(f"convert/{teacher.name}"), labeler=labeler)
        return Answers(
            name=self.named(name),
            examples=examples,
            part=half,
            labeler=labeler,
            converted=converted,
            task=self.task,
            decoding=self.decoding(self.config.labeling.beams, self.config.labeling.batch_size),
            tolerance=self.tolerance,
        )

    def answered(self, teacher: TeacherSection) -> Answered:
        if isinstance(teacher, ModelSection):
            kind = "beams" if self.task.form == "text" else "classes"
            return self.answers(teacher, f"{kind}/{teacher.name}", self.split, "student")
        return Given(
            name=self.named(f"labels/{teacher.name}"),
            split=self.split,
            task=self.task,
            teacher=teacher,
            fingerprint=teacher_kind(teacher).fingerprint(teacher),
        )

    @cached_property
    def label(self) -> Label:
        return Label(
            name=self.named("label"),
            split=self.split,
            answers={teacher.name: self.answered(teacher) for teacher in self.config.teachers},
            scorers=self.labelers if self.task.form == "text" else {},
            task=self.task,
            batch_size=self.config.labeling.batch_size,
            tolerance=self.tolerance,
        )

    @cached_property
    def given(self) -> dict[str, Given]:
        return {name: answered for name, answered in self.label.answers.items() if isinstance(answered, Given)}

    @cached_property
    def fitted(self) -> FitOnDevel:
        if self.task.form == "text":
            return FitTexts(
                name=self.named("fit"),
                validation=self.validation,
                task=self.task,
                scorers=self.labelers,
                batch_size=self.config.labeling.batch_size,
                tolerance=self.tolerance,
            )
        return FitClasses(
            name=self.named("fit"),
            validation=self.validation,
            answers={
                teacher.name: self.answers(teacher, f"devel/{teacher.name}", self.validation, "validation")
                for teacher in self.config.models
            },
            task=self.task,
            calibrate=self.config.labeling.calibrate,
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
                students.append(replace(planned, doubt=self.doubt(planned)))
        training = self.config.ceiling_training or self.config.student_training
        model = self.trained("ceiling", "student", training, self.config.student.model)
        ceiling = self.test("ceiling", self.decoded(model, precision))
        labeled = all(example["target"] is not None for example in self.split.drawn.parts["student"])
        return SeedPlan(
            seed=self.seed,
            testset=self.testset,
            validation=self.validation,
            label=self.label,
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
