"""The stages of one seed up to the labels: the examples, the teachers, what they answer, and what is fitted on devel."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from raw2s.config import Decoding, RunConfig, Tolerance, TrainingConfig
from raw2s.models import Precision
from raw2s.models.source import model_fingerprint
from raw2s.pipeline.answer_stages import Answered, Answers, Convert, Given, Labeler
from raw2s.pipeline.data_stages import Drawn, Examples
from raw2s.pipeline.fitting_stages import FitClasses, FitOnDevel, FitTexts
from raw2s.pipeline.labeling_stages import Label
from raw2s.pipeline.model import AsItIs, Model
from raw2s.pipeline.training_stages import Judging, TrainOnGroundTruth
from raw2s.section import Actors, part
from raw2s.tasks import Task, draw_halves, task_of
from raw2s.teachers import ModelSection, TeacherSection, teacher_kind


@dataclass(frozen=True, kw_only=True)
class TeacherPlan:
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
    def devel(self) -> dict[str, Answers]:
        return {
            teacher.name: self.answers(teacher, f"devel/{teacher.name}", self.validation, "validation")
            for teacher in self.config.models
        }

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
            answers=self.devel,
            task=self.task,
            calibrate=self.config.labeling.calibrate,
        )
