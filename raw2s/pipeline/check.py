"""Should this work? The teachers' answers to devel and B, and what they say of an ensemble before any student trains."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy.special import softmax

from raw2s.config import RunConfig
from raw2s.errors import ConfigError
from raw2s.evaluation import paired_bootstrap
from raw2s.evaluation.agreement import agreement, best_of_each, cohen_kappa, error_correlation, vote_shares
from raw2s.evaluation.calibration import expected_calibration_error, gap_in_bins
from raw2s.evaluation.intervals import defined, defined_interval
from raw2s.evaluation.metrics import Counts, errors, share_correct
from raw2s.labels.forms import FORMS
from raw2s.outlook import CheckedTeacher, Ensemble, Outlook, TeacherPair
from raw2s.pipeline.answer_stages import Answered
from raw2s.pipeline.plan import plan_stages
from raw2s.pipeline.preflight import check, check_surroundings
from raw2s.pipeline.remote_store import open_store
from raw2s.pipeline.seed_plan import SeedPlan
from raw2s.pipeline.stage import Stage, inputs_first
from raw2s.pipeline.weights import named_weights
from raw2s.report.outlook import advice, outlook_table
from raw2s.storage import ARTIFACTS
from raw2s.storage.files import write
from raw2s.tasks import Task
from raw2s.tasks.task import Scored

Folders = Mapping[str, Path]
"""Of the artifacts, by the stage's name."""


def run_check(config: RunConfig, console: Console | None = None) -> Outlook:
    """Run the first seed's teachers up to their answers to devel and B, say what they promise, and write `check.json`.

    Raises ConfigError before anything starts, StageFailed after.
    """
    from raw2s.pipeline.execute import execute  # imports Ray  # noqa: PLC0415
    from raw2s.pipeline.progress import StageDisplay  # noqa: PLC0415

    check(config)
    check_surroundings(config)
    if not config.models and len(config.teachers) < 2:
        raise ConfigError("teachers: one label file can be set beside nothing; add a teacher that is a model, or another file")
    console = console or Console()
    plan = plan_stages(config, config.seeds[0])
    stages: list[Stage] = [plan.validation, *plan.devel.values(), *plan.label.answers.values()]
    store = open_store(config.storage / ARTIFACTS)
    with StageDisplay(console) as display:
        done = execute(inputs_first(stages), store=store, display=display, ray_config=config.ray)
    found = outlook(config, plan, {name: finished.artifact.folder for name, finished in done.items()})
    file = config.storage / config.name / "check.json"
    write(file, (found.model_dump_json(indent=1) + "\n").encode())
    console.print(outlook_table(found))
    console.print(f"check    {file}", highlight=False, soft_wrap=True)
    return found


def outlook(config: RunConfig, plan: SeedPlan, folders: Folders) -> Outlook:
    """From the finished answers."""
    task, metric = plan.label.task, plan.label.task.metric
    devel = _read_devel(plan, folders) if plan.devel else None
    teachers, best, ensembles, oracle = ([], None, [], None) if devel is None else _on_devel(config, devel)
    return Outlook(
        run=config.name,
        task=task.name,
        form=task.form,
        metric=metric.name,
        metric_title=metric.title,
        seed=plan.seed,
        devel_examples=0 if devel is None else len(devel.gold),
        b_examples=len(plan.label.split.drawn.parts["student"]),
        teachers=teachers,
        best=best,
        ensembles=ensembles,
        oracle=oracle,
        pairs=_pairs(devel, plan, folders),
        advice=advice(ensembles, oracle, best, len(teachers)),
    )


def _on_devel(config: RunConfig, devel: "_Devel") -> tuple[list[CheckedTeacher], str, list[Ensemble], Ensemble]:
    """The models, which of them is the best, and what they are worth together; last where the best of all answers were known."""
    metric, counts = devel.task.metric, devel.counts(named_weights(config, "loss"))
    samples = paired_bootstrap(counts, metric.score, resamples=config.evaluation.resamples)
    scores = {name: float(metric.score(own.mean(axis=0))) for name, own in counts.items()}
    best = max(devel.scored, key=lambda name: scores[name])
    teachers = [
        CheckedTeacher(name=name, score=scores[name], ci95=defined_interval(samples[name]), ece=devel.calibration_error(name))
        for name in devel.scored
    ]
    *ensembles, oracle = [
        Ensemble(
            name=name,
            score=scores[name],
            over_best=scores[name] - scores[best],
            ci95=defined_interval(samples[name] - samples[best]),
        )
        for name in counts
        if name not in devel.scored
    ]
    return teachers, best, ensembles, oracle


@dataclass(frozen=True, kw_only=True)
class _Devel:
    """The models' answers to the validation examples that all of them answered, by name, item by item."""

    task: Task
    gold: list[Any]
    target: list[str]
    scored: dict[str, Scored]
    """Of their first choices."""
    choices: list[list[str]]
    """Every item's answers of all, each once."""
    logits: dict[str, list[list[float]]] | None
    """Of classes."""
    logprobs: dict[str, list[float]] | None
    """Of texts: of the whole first choice, as it was written."""

    def counts(self, weights: Mapping[str, float]) -> dict[str, Counts]:
        """Each teacher's, then the ensembles' and last the oracle's, by name. Weights as far as the loss has them from the config."""
        names = list(self.scored)
        counts_IPC = np.array([self.scored[name].counts for name in names])
        shares_IP = vote_shares([_answers(self.scored[name].predicted) for name in names])
        found = dict(zip(names, counts_IPC, strict=True)) | {"majority": np.einsum("IP,IPC->PC", shares_IP, counts_IPC)}
        if self.logits is not None:
            mixed_PK = sum(weights[name] * softmax(np.array(self.logits[name]), axis=1) for name in names)
            said = [self.task.classes[k] for k in np.argmax(mixed_PK, axis=1)]
            found["weighted mean"] = self.task.scoring.score(self.gold, said).counts
        return found | {"best answer": self.of_best_answers()}

    def of_best_answers(self) -> Counts:
        """A right answer where there is one; else that of the highest score by itself, which of a micro F1 is near the best."""
        places = [(item, text) for item, own in enumerate(self.choices) for text in own]
        gold = [self.gold[item] for item, _ in places]
        scored = self.task.scoring.score(gold, [text for _, text in places])
        value_N = self.task.metric.score(scored.counts) + 2 * share_correct(gold, scored.predicted)[:, 0]
        return scored.counts[best_of_each([item for item, _ in places], value_N)]

    def calibration_error(self, name: str) -> float:
        """Of the class probabilities; of texts, of the answer's probability against whether it is right."""
        if self.logits is None:
            assert self.logprobs is not None, "what has no classes has texts"
            wrong_P = errors(self.task.metric, self.gold, self.scored[name].counts)
            return gap_in_bins(np.exp(self.logprobs[name]), ~wrong_P)
        labels_P = np.array([self.task.classes.index(target) for target in self.target], dtype=np.int64)
        return expected_calibration_error(softmax(np.array(self.logits[name]), axis=1), labels_P)

    def wrong(self, name: str) -> NDArray[np.bool_]:
        return share_correct(self.gold, self.scored[name].predicted)[:, 0] == 0


def _read_devel(plan: SeedPlan, folders: Folders) -> _Devel:
    task, form = plan.label.task, FORMS[plan.label.task.form]
    tables = {name: _column(stage, folders, form.column) for name, stage in plan.devel.items()}
    examples = plan.validation.read(folders[plan.validation.name], "validation")
    kept = [example for example in examples if all(example["id"] in own for own in tables.values())]
    gold = [example["gold"] for example in kept]
    said = {n: [own[example["id"]] for example in kept] for n, own in tables.items()}
    first = {name: [form.said(answer, task.classes) for answer in own] for name, own in said.items()}
    text = task.form == "text"
    every = said if text else {name: [[answer] for answer in own] for name, own in first.items()}
    logprobs = {name: _column(stage, folders, "logprobs") for name, stage in plan.devel.items()} if text else {}
    return _Devel(
        task=task,
        gold=gold,
        target=[str(example["target"]) for example in kept],
        scored={name: task.scoring.score(gold, own) for name, own in first.items()},
        choices=[list(dict.fromkeys(text for own in item for text in own)) for item in zip(*every.values(), strict=True)],
        logits=None if text else said,
        logprobs={n: [own[example["id"]][0] for example in kept] for n, own in logprobs.items()} if text else None,
    )


def _pairs(devel: _Devel | None, plan: SeedPlan, folders: Folders) -> list[TeacherPair]:
    """Every two teachers, label files among them."""
    task, form = plan.label.task, FORMS[plan.label.task.form]
    on_b = {}
    for name, stage in plan.label.answers.items():
        own = _column(stage, folders, form.column)
        on_b[name] = dict(
            zip(own, _answers([task.parse(form.said(answer, task.classes)) for answer in own.values()]), strict=True)
        )
    pairs = []
    for one, other in combinations(on_b, 2):
        shared = [i for i in on_b[one] if i in on_b[other]]
        answers = [on_b[one][i] for i in shared], [on_b[other][i] for i in shared]
        wrong = [devel.wrong(name) for name in (one, other) if name in devel.scored] if devel is not None else []
        pairs.append(
            TeacherPair(
                one=one,
                other=other,
                error_correlation=defined(error_correlation(*wrong)) if len(wrong) == 2 else None,
                same_on_b=defined(agreement(*answers)),
                kappa_on_b=defined(cohen_kappa(*answers)) if task.form == "classes" else None,
            )
        )
    return pairs


def _column(stage: Answered, folders: Folders, column: str) -> dict[int, Any]:
    table = stage.read(folders[stage.name])
    return dict(zip(table["id"].to_pylist(), table[column].to_pylist(), strict=True))


def _answers(parsed: list[Any]) -> list[str]:
    """As values that can be counted: a task's answers may be lists."""
    return [repr(answer) for answer in parsed]
