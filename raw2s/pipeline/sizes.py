"""What every stage of a plan takes, before anything runs: memory, work, disk, hours on a GPU; and what to set where it does not fit.

From the models' configs, the tokenizers and a sample of the run's own examples: no weights.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from raw2s.config import Decoding, RunConfig, training_key
from raw2s.labels.rows import RowKind
from raw2s.pipeline.answer_stages import Answers, Labeler
from raw2s.pipeline.decoding_sizes import Asked, answering_size, scoring_size
from raw2s.pipeline.doubt_stages import AnswerDoubts, ClassLogits, DropoutDoubts
from raw2s.pipeline.fitting_stages import FitTexts
from raw2s.pipeline.labeling_stages import Label
from raw2s.pipeline.model import AsItIs, Model
from raw2s.pipeline.pair_stages import Pairs
from raw2s.pipeline.sampled_rows import pair_rows, sample, student_rows, truth_rows
from raw2s.pipeline.seed_plan import SeedPlan
from raw2s.pipeline.stage import Stage
from raw2s.pipeline.testing_stages import Test
from raw2s.pipeline.training_sizes import Trainee, training_size
from raw2s.pipeline.training_stages import Trained, TrainOnGroundTruth, TrainPreference, TrainStudent
from raw2s.sizing.stage import Device, StageSize
from raw2s.tasks import Example


def plan_sizes(config: RunConfig, plan: SeedPlan, device: Device) -> list[StageSize]:
    """Every stage of one seed that runs a model, in order; one that asks several models once for each."""
    a, sections = plan.label.split.drawn.parts["teacher"], _sections(config, plan)
    return [size for stage in plan.in_order() for size in _stage_sizes(config, stage, a, sections, device)]


def _sections(config: RunConfig, plan: SeedPlan) -> dict[str, str]:
    """Of every stage that trains the config's key of its training, by the stage's name."""
    shared = "student_training" if config.ceiling_training is None else "ceiling_training"
    trained = [stage for stage in plan.in_order() if isinstance(stage, TrainOnGroundTruth)]
    found = {stage.name: "teacher_training" if stage.part == "teacher" else shared for stage in trained}
    for student in plan.students:
        key = training_key(student.entry, student.method, preference=isinstance(student.stage, TrainPreference))
        found.setdefault(student.stage.name, key)  # of two entries with one student the first
    return found


def _stage_sizes(
    config: RunConfig, stage: Stage, a: Sequence[Example], sections: Mapping[str, str], device: Device
) -> Iterator[StageSize]:
    match stage:
        case Trained():
            yield training_size(_trainee(config, stage, a, sections[stage.name]), stage.training, device)
        case Answers():
            b = stage.examples.drawn.parts[stage.part]
            yield _answered(_asked(stage.name, "labeling", stage.labeler, b, a, stage.decoding), device)
        case Test():
            b = stage.examples.drawn.parts["test"]
            yield _answered(_asked(stage.name, "evaluation", stage.labeler, b, a, stage.decoding), device)
        case ClassLogits():
            held_out = [*stage.testset.drawn.parts["test"], *stage.validation.drawn.parts["validation"]]
            yield _answered(_asked(stage.name, "evaluation", stage.labeler, held_out, a, stage.decoding), device)
        case AnswerDoubts():
            test = stage.testset.drawn.parts["test"]
            yield scoring_size(_asked(stage.name, "evaluation", stage.labeler, test, a, stage.test.decoding), 1, device)
        case DropoutDoubts():
            test = stage.testset.drawn.parts["test"]
            asked = _asked(stage.name, "evaluation", stage.labeler, test, a, stage.test.decoding)
            once = scoring_size(asked, 1, device) if stage.test.task.form == "text" else _answered(asked, device)
            yield replace(once, tokens=stage.passes * once.tokens, flops=stage.passes * once.flops)
        case Label():
            b, written = stage.split.drawn.parts["student"], _label_decoding(config)
            for name, scorer in stage.scorers.items():
                asked = _asked(f"{stage.name}: {name}", "labeling", scorer, b, a, written)
                yield scoring_size(asked, config.labeling.beams * len(stage.answers), device)
        case FitTexts():
            devel, written = stage.validation.drawn.parts["validation"], _label_decoding(config)
            for name, scorer in stage.scorers.items():
                yield scoring_size(_asked(f"{stage.name}: {name}", "labeling", scorer, devel, a, written), 1, device)
        case Pairs():
            b = stage.split.drawn.parts["student"][: stage.prompts]
            yield _answered(_asked(f"{stage.name}: beams", "labeling", stage.student, b, a, stage.decoding), device)
            for name, scorer in {**stage.scorers, "student": stage.student}.items():
                asked = _asked(f"{stage.name}: {name}", "labeling", scorer, b, a, stage.decoding)
                yield scoring_size(asked, stage.decoding.beams or 1, device)


def _trainee(config: RunConfig, stage: Trained, a: Sequence[Example], section: str) -> Trainee:
    """What a training stage learns from; its settings stand in the config's `section`."""
    task = stage.task
    kind: RowKind = "targets" if task.form == "text" else "probabilities"
    match stage:
        case TrainOnGroundTruth():
            examples = stage.split.drawn.parts[stage.part]
            rows = truth_rows(examples, task)
        case TrainStudent():
            examples = stage.split.drawn.parts["student"]
            names = [teacher.name for teacher in config.teachers]
            weights = dict.fromkeys(names, 1 / len(names)) if stage.weights == "devel" else stage.weights
            rows = student_rows(stage.method, weights, examples, a, task)
        case TrainPreference():
            examples = stage.pairs.split.drawn.parts["student"][: stage.pairs.prompts]
            rows, kind = pair_rows(examples, a), "pair"
        case _:
            raise TypeError(f"{type(stage).__name__} trains in a way that has no size here; add it")
    return Trainee(
        stage=stage.name, section=section, model=pretrained(stage), classes=len(task.classes), rows=rows, kind=kind,
        count=len(examples), chat=task.chat,
    )  # fmt: skip


def pretrained(model: Model) -> str:
    """The model that a stage's weights come from, by its name in the config."""
    match model:
        case TrainOnGroundTruth() | TrainStudent() | AsItIs():
            return model.pretrained
        case TrainPreference():
            return pretrained(model.student)
    raise TypeError(f"{type(model).__name__} comes from no model that is known here; add it")


def _label_decoding(config: RunConfig) -> Decoding:
    labeling = config.labeling
    return Decoding(beams=labeling.beams, max_new_tokens=labeling.max_new_tokens, batch_size=labeling.batch_size)


def _asked(
    name: str, section: str, labeler: Labeler, examples: Sequence[Example], a: Sequence[Example], decoding: Decoding
) -> Asked:
    prompts = [example["prompt"] for example in sample(examples)]
    model = labeler.model
    if isinstance(model, AsItIs):
        before = model.before(a)
        prompts = [model.around(before, prompt) for prompt in prompts]
    return Asked(
        stage=name, section=section, labeler=labeler, model=pretrained(model), prompts=prompts,
        answers=[str(example["target"]) for example in sample(a)], count=len(examples), decoding=decoding,
    )  # fmt: skip


def _answered(asked: Asked, device: Device) -> StageSize:
    model = asked.labeler.model
    if model.scores_classes:  # by the names of the classes
        return scoring_size(replace(asked, answers=model.task.classes), len(model.task.classes), device)
    return answering_size(asked, device)
