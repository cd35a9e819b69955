"""Which parts of a config go together, once its task is known: text or classes, and who can score or be fitted."""

from collections.abc import Iterator
from typing import Literal

from raw2s.config import RunConfig, StudentConfig, TrainingConfig, training_key
from raw2s.errors import ConfigError
from raw2s.methods import METHODS, MethodSection, loss_of, method_of
from raw2s.methods.dirichlet import DirichletSection
from raw2s.methods.moments import MomentsSection
from raw2s.methods.single import SingleSection
from raw2s.tasks import Task
from raw2s.teachers import ModelSection


def check_rules(config: RunConfig, task: Task) -> None:
    """Raise ConfigError, naming the key and what to do, for what cannot work together."""
    names = [teacher.name for teacher in config.teachers]
    for index, method in enumerate(config.methods):
        _check_method(f"methods.{index}", config.of(method), task, method, names)
    for index, teacher in enumerate(config.teachers):
        if not isinstance(teacher, ModelSection):
            continue
        if teacher.backend == "ctranslate2" and task.form == "classes":
            raise ConfigError(f"teachers: backend ctranslate2 finds beams, and {teacher.name} has none to find; remove it")
        if teacher.backend == "ctranslate2" and not teacher.fine_tune:
            raise ConfigError(f"teachers: {teacher.name} with fine_tune: false is asked by torch; remove its backend")
        if not teacher.fine_tune and "{prompt}" not in teacher.instruction:
            raise ConfigError(f"teachers.{index}.instruction: it lacks {{prompt}}, the place of the example; put it in")
        if teacher.fine_tune and (teacher.shots or teacher.instruction != "{prompt}"):
            raise ConfigError(
                f"teachers: {teacher.name}'s instruction and shots go with fine_tune: false; set it, or remove them"
            )
    _check_devel("", config, task)
    for index, method in enumerate(config.methods):
        if method.weights:
            _check_devel(f"methods.{index}.", config.of(method), task)
    for key, actors, use, training in trainings_of(config):
        if training.judge == "score" and training.zero_stage == 3 and task.form == "text":
            raise ConfigError(
                f"{use}.judge: score decodes, and zero_stage 3 would gather all weights for every token; set {use}.zero_stage: 2, or "
                f"{use}.judge: loss"
            )
        if actors.num_gpus > 0 and training.gpus_per_worker == 0:
            raise ConfigError(
                f"{use}.gpus_per_worker: {key}.num_gpus is for labeling and testing, and training would run without a GPU; set "
                f"{use}.gpus_per_worker: 1, or {key}.num_gpus: 0"
            )


def trainings_of(config: RunConfig) -> Iterator[tuple[str, ModelSection | StudentConfig, str, TrainingConfig]]:
    """Every model that is trained and how: its key, its section, the key of its training, and that."""
    for index, teacher in enumerate(config.teachers):
        if isinstance(teacher, ModelSection) and teacher.fine_tune:
            yield f"teachers.{index}", teacher, "teacher_training", config.teacher_training
    for use, training in trainings_on_b(config):
        yield "student", config.student, use, training
    if any(method.cdpo for method in config.methods):
        yield "student", config.student, "preference.training", config.preference.training
    for index, method in enumerate(config.methods):
        if method.cdpo and "training" in method.preference:
            key = training_key(index, method, preference=True)
            yield "student", config.student, key, config.of(method).preference.training


def trainings_on_b(config: RunConfig) -> Iterator[tuple[str, TrainingConfig]]:
    """How ceiling and students are trained on B, by the config's keys; an entry's own where it has one."""
    yield "student_training", config.student_training
    if config.ceiling_training is not None:
        yield "ceiling_training", config.ceiling_training
    for index, method in enumerate(config.methods):
        if method.training:
            yield training_key(index, method, preference=False), config.of(method).student_training


def _check_method(key: str, config: RunConfig, task: Task, method: MethodSection, names: list[str]) -> None:
    made = method_of(method)
    if (made.from_text if task.form == "text" else made.from_classes) is None:
        known = [name for name, m in METHODS.items() if (m.from_text if task.form == "text" else m.from_classes)]
        what = "combines classes" if task.form == "text" else "combines texts"
        raise ConfigError(
            f"{key}.method: {method.method} {what}, and task {task.name} is of {task.form}; use {' or '.join(known)}"
        )
    loss = loss_of(method.loss)
    if (loss.over_tokens if task.form == "text" else loss.over_classes) is None:
        raise ConfigError(f"{key}.loss: {method.loss.name} has no formula over {task.form}; choose another loss")
    if isinstance(method, MomentsSection) != isinstance(method.loss, DirichletSection):
        raise ConfigError(
            f"{key}.loss: method moments makes a Dirichlet's counts, and loss dirichlet learns nothing else; give both, or neither"
        )
    if isinstance(method, SingleSection) and method.teacher not in names:
        raise ConfigError(f"{key}.teacher: no teacher is called {method.teacher!r}; name one of {', '.join(names)}")
    if method.cdpo and task.form == "classes":
        raise ConfigError(f"{key}.cdpo: cdpo needs a task of text, and {task.name} is of classes; remove it")
    if method.preference and not method.cdpo:
        raise ConfigError(f"{key}.preference: it goes with cdpo: true; set that, or remove preference")
    no_scorer = "needs a teacher that scores; add a model with a weight above zero in "
    if task.form == "text" and method.method == "joint" and not _scorers(config, "joint"):
        raise ConfigError(f"{key}.method: joint {no_scorer}weights.joint")
    if method.cdpo and not _scorers(config, "preference"):
        raise ConfigError(f"{key}.cdpo: preference {no_scorer}weights.preference")


def _check_devel(at: str, config: RunConfig, task: Task) -> None:
    """What needs class probabilities, or models that can be asked about the validation examples, has them; `at` is before `weights`."""
    devel, calibrate = config.weights.loss == "devel", config.labeling.calibrate
    if task.form == "text" and calibrate:
        raise ConfigError(f"labeling.calibrate needs class probabilities, and task {task.name} is of text; remove it")
    if devel and len(config.models) < len(config.teachers):
        raise ConfigError(
            f"{at}weights.loss: devel needs every teacher's labels of devel, and label files hold B's; give numbers"
        )
    if calibrate and not config.models:
        raise ConfigError("labeling.calibrate: temperatures are fitted to models, and no teacher is one; remove it")


def _scorers(config: RunConfig, use: Literal["joint", "preference"]) -> list[str]:
    models = {teacher.name for teacher in config.models}
    weighted = zip(config.teachers, config.teacher_weights(use), strict=True)
    return [teacher.name for teacher, weight in weighted if weight > 0 and teacher.name in models]
