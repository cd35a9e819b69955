"""Several finished runs against each other: their configs, and their students in pairs on the test examples that they share."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raw2s.config import RunConfig, load_config, read_yaml
from raw2s.errors import ConfigError
from raw2s.evaluation import drawn_seeds, paired_bootstrap
from raw2s.evaluation.intervals import over_seeds
from raw2s.evaluation.metrics import example_scores
from raw2s.pipeline.artifacts import damage
from raw2s.pipeline.comparisons import Resampled, compare_students
from raw2s.pipeline.finished import finished_results
from raw2s.pipeline.jsonl import read_jsonl
from raw2s.pipeline.testing_stages import Test
from raw2s.report.compared import ComparedRun, Comparison, Pair
from raw2s.results import Student
from raw2s.storage import ARTIFACTS, Place
from raw2s.storage.copies import Damaged, fetched, gathered, local
from raw2s.tasks import task_of
from raw2s.tracking.flat import flat

BY_PAIRS = (
    "Pairs: every student of one run with every student of another that were tested on the same examples, by one bootstrap over these "
    "examples and, of several seeds, over the seeds (paired where two runs have the same ones). p: of no difference, two-sided; "
    "corrected (Holm) for all pairs here. The same model in two runs makes no pair."
)


@dataclass(frozen=True, kw_only=True)
class AnsweredRun:
    """A run with its students' answers to the test examples."""

    run: ComparedRun
    config: RunConfig
    tests: dict[str, list[Path]]
    """The artifacts of every student's tests, a seed each, by its label."""

    @cached_property
    def tested(self) -> list[tuple[Any, Any]]:
        """Every test example's id and gold, in order."""
        first = next(iter(self.tests.values()))[0]
        return [(row["id"], row["gold"]) for row in read_jsonl(first / Test.PREDICTIONS)]

    @cached_property
    def examples(self) -> tuple[str, str]:
        """The metric, and the test examples: equal where two runs can be paired."""
        return self.run.results.metric, json.dumps(self.tested, sort_keys=True)

    @property
    def students(self) -> dict[str, Student]:
        """By label."""
        return {label: shown.student for label, shown in self.run.systems.items() if shown.student is not None}


def compare_runs(folders: Sequence[Place]) -> Comparison:
    """The finished runs in these folders. Raises ConfigError for fewer than two, and where a folder holds none."""
    if len(folders) < 2:
        raise ConfigError("raw2s compare: one run has nothing to be compared with; give the folders of two or more")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ConfigError("raw2s compare: a run is named twice; name each once")
    results = [finished_results(gathered(folder)) for folder in folders]
    own = [run.run for run in results]
    names = own if len(set(own)) == len(own) else [str(folder) for folder in folders]
    runs = [
        ComparedRun(name=name, folder=folder.resolve(), results=found)
        for name, folder, found in zip(names, folders, results, strict=True)
    ]
    notes: list[str] = []
    answered: list[AnsweredRun] = []
    for run in runs:
        try:
            answered.append(_answered(run))
        except (ConfigError, Damaged) as error:
            notes.append(f"{run.name} is in no pair: {error}.")
    notes += [sentence for one, other in itertools.combinations(answered, 2) if (sentence := _unlike(one, other))]
    pairs = _pairs(answered)
    return Comparison(runs=runs, keys=_differing(runs), pairs=pairs, notes=[*notes, *([BY_PAIRS] if pairs else [])])


def _differing(runs: Sequence[ComparedRun]) -> dict[str, list[str | None]]:
    """The keys of the configs that are not the same in all runs; a name is none."""
    trees = [flat(read_yaml(local(run.folder) / "config.yaml", [])) for run in runs]
    keys = dict.fromkeys(key for tree in trees for key in tree if key != "name")
    return {key: values for key in keys if len(set(values := [tree.get(key) for tree in trees])) > 1}


def _answered(run: ComparedRun) -> AnsweredRun:
    """Raises ConfigError, without a full stop, where a test's artifact or what scored it cannot be read again."""
    config = load_config(local(run.folder) / "config.yaml")
    keys = {stage.name: stage.key for stage in run.results.stages}
    tests: dict[str, list[Path]] = {}
    for label, shown in run.systems.items():
        if shown.student is not None:
            seeds = [f"@{seed}" for seed in run.results.seeds] if len(run.results.seeds) > 1 else [""]
            names = [f"test/{shown.stage}{seed}" for seed in seeds]
            tests[label] = [fetched(run.folder.parent / ARTIFACTS / Test.kind / keys[name]) for name in names]
    for folder in itertools.chain.from_iterable(tests.values()):
        if (problem := damage(folder)) is not None:
            raise ConfigError(f"{folder} is not whole ({problem}); run its config again")
    if not tests:
        raise ConfigError("it has no student; run its config with methods")
    try:
        task_of(config.task)
    except ValueError as error:
        raise ConfigError(f"its data cannot be read again ({error}); put them back") from None
    return AnsweredRun(run=run, config=config, tests=tests)


def _unlike(one: AnsweredRun, other: AnsweredRun) -> str | None:
    """Why two runs cannot be compared by pairs, and what to do; None where they can."""
    metrics = [answered.run.results.metric_title for answered in (one, other)]
    who = f"{one.run.name} and {other.run.name} are not compared by pairs"
    if one.examples[0] != other.examples[0]:
        return f"{who}: they are scored by {metrics[0]} and {metrics[1]}; give both runs the same metric."
    if one.examples[1] != other.examples[1]:
        return f"{who}: their test examples are not the same; test both on the same ones, in the same order."
    return None


def _pairs(runs: Sequence[AnsweredRun]) -> list[Pair]:
    """Of all runs that can be compared, corrected together."""
    students = {name: own for like in _alike(runs) for name, own in _resampled(like).items()}
    tests = {(answered.run.name, label): folders for answered in runs for label, folders in answered.tests.items()}
    alike = {answered.run.name: answered.examples for answered in runs}
    named = [
        (one, other)
        for one, other in itertools.combinations(students, 2)
        if one[0] != other[0] and alike[one[0]] == alike[other[0]] and _names(tests[one]) != _names(tests[other])
    ]
    differences = compare_students(
        list(students.values()), [(students[one], students[other]) for one, other in named]
    ).differences
    return [Pair(one=one, other=other, difference=own) for (one, other), own in zip(named, differences, strict=True)]


def _names(folders: Sequence[Path]) -> list[str]:
    """Artifacts' keys: of the same content the same, whatever the storage."""
    return [folder.name for folder in folders]


def _alike(runs: Sequence[AnsweredRun]) -> list[list[AnsweredRun]]:
    """The runs by what they were tested on."""
    found: dict[Any, list[AnsweredRun]] = {}
    for answered in runs:
        found.setdefault(answered.examples, []).append(answered)
    return list(found.values())


def _resampled(runs: Sequence[AnsweredRun]) -> dict[tuple[str, str], Resampled]:
    """The students of runs on the same test examples, by run and label: all on the same resampled test sets.

    Runs with the same seeds draw the same of them; others draw for themselves.
    """
    counts: dict[tuple[str, str, int], NDArray[np.float64]] = {
        (answered.run.name, label, place): np.load(folder / Test.COUNTS)
        for answered in runs
        for label, folders in answered.tests.items()
        for place, folder in enumerate(folders)
    }
    metric, gold = task_of(runs[0].config.task).metric, [gold for _, gold in runs[0].tested]
    resamples = max(answered.config.evaluation.resamples for answered in runs)
    names = {str(place): name for place, name in enumerate(counts)}
    samples = paired_bootstrap({place: counts[name] for place, name in names.items()}, metric.score, resamples=resamples)
    by_name = {names[place]: own for place, own in samples.items()}
    seeds = list(dict.fromkeys(tuple(answered.run.results.seeds) for answered in runs))
    found = {}
    for answered in runs:
        run, own_seeds = answered.run, tuple(answered.run.results.seeds)
        drawn = drawn_seeds(len(own_seeds), resamples=resamples, seed=seeds.index(own_seeds))
        for label, student in answered.students.items():
            own = [(run.name, label, place) for place in range(len(own_seeds))]
            found[run.name, label] = Resampled(
                student=student,
                samples=over_seeds(drawn, [by_name[name] for name in own]),
                per_example=np.mean([example_scores(metric, gold, counts[name]) for name in own], axis=0),
                best=None,
            )
    return found
