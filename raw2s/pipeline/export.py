"""A finished run's student as a folder of its own: the model, `raw2s.json` with all it takes to ask it, and a card."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from raw2s import __version__
from raw2s.config import RunConfig, load_config
from raw2s.errors import ConfigError
from raw2s.evaluation import paired_bootstrap
from raw2s.evaluation.intervals import defined_interval
from raw2s.evaluation.metrics import errors
from raw2s.pipeline.artifacts import damage
from raw2s.pipeline.finished import finished_results
from raw2s.pipeline.plan import plan_stages
from raw2s.pipeline.seed_plan import PlannedStudent, SeedPlan
from raw2s.pipeline.stage import Stage
from raw2s.storage import ARTIFACTS, Place
from raw2s.storage.copies import fetched, gathered
from raw2s.tasks import Example, Task, task_of
from raw2s.use.card import write_card
from raw2s.use.sheet import Devel, Sheet, TestScore
from raw2s.use.student import Student


def export_student(run: Place, name: str | None, out: Path) -> Sheet:
    """Make the folder `out` of a student of the run in the folder `run`, `<storage>/<name>`; for it the student is asked over devel.

    `name`: its stage, such as `student/0-bayesian`, of several seeds with `@2`, else of the first; None where there is one student.
    The artifacts stay as they are. Raises ConfigError, in one line, before anything is written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there already; give a new folder")
    folder = gathered(run)
    results = finished_results(folder)
    config = load_config(folder / "config.yaml")
    try:
        plans = [plan_stages(config, seed) for seed in config.seeds]
    except ValueError as error:
        raise ConfigError(f"{run}: its data cannot be read again: {error}") from None
    plan, student = _chosen(run, plans, name)
    store = run.resolve().parent / ARTIFACTS
    model, tested = (_artifact(store, run, stage) for stage in (student.stage, student.test))
    sheet = _sheet(config, student, tested)
    out.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        made.chmod(0o755)
        shutil.copytree(student.stage.source(model), made, dirs_exist_ok=True)
        devel = _devel(Student.of(made, sheet), task_of(config.task), plan.validation.drawn.parts["validation"])
        sheet = sheet.model_copy(update={"devel": devel})
        sheet.write(made)
        write_card(made, sheet, results, items=len(plan.label.split.drawn.parts["student"]))
        made.replace(out)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return sheet


def _chosen(run: Place, plans: Sequence[SeedPlan], name: str | None) -> tuple[SeedPlan, PlannedStudent]:
    """The student called `name`, with or without its seed, and its plan."""
    students = [(plan, student) for plan in plans for student in plan.students]
    known = list(dict.fromkeys(student.stage.name.partition("@")[0] for _, student in students))
    if name is None and len(known) == 1:
        name = known[0]
    for plan, student in students:
        if name in (student.stage.name, student.stage.name.partition("@")[0]):
            return plan, student
    what = "has several students" if name is None else f"has no student {name!r}"
    raise ConfigError(f"{run}: {what}; name one of {', '.join(known) or 'another run'}")


def _artifact(store: Place, run: Place, stage: Stage) -> Path:
    folder = fetched(store / stage.kind / stage.key)
    if (problem := damage(folder)) is not None:
        raise ConfigError(f"{run}: {stage.name} is not whole in {folder} ({problem}); run the config again")
    return folder


def _sheet(config: RunConfig, student: PlannedStudent, tested: Path) -> Sheet:
    """All but the answers to devel."""
    task, decoding = task_of(config.task), student.test.decoding
    counts_UC = student.test.counts(tested)
    samples = paired_bootstrap({"student": counts_UC}, task.metric.score, resamples=config.evaluation.resamples)["student"]
    return Sheet(
        version=__version__,
        run=config.name,
        student=student.stage.name,
        base_model=config.student.model,
        task=task.name,
        form=task.form,
        classes=list(task.classes),
        prompt=task.template,
        chat=task.chat,
        id=getattr(config.task, "id", "id"),  # the tasks that name no column have rows of their own, with the data set's ids
        loss=None if student.dirichlet is None else student.dirichlet.model_dump(mode="json"),
        beams=decoding.beams,
        max_new_tokens=decoding.max_new_tokens,
        batch_size=decoding.batch_size,
        test=TestScore(
            metric=task.metric.name,
            title=task.metric.title,
            value=float(task.metric.score(counts_UC.mean(axis=0))),
            ci95=defined_interval(samples),
            examples=len(counts_UC),
        ),
        devel=None,
    )


def _devel(student: Student, task: Task, examples: Sequence[Example]) -> Devel:
    answers = student.answer_prompts([example["prompt"] for example in examples])
    gold = [example["gold"] for example in examples]
    counts = task.scoring.score(gold, [answer.answer for answer in answers]).counts
    right = (~errors(task.metric, gold, counts)).tolist()
    return Devel(probability=[answer.probability for answer in answers], right=right)
