"""What the models of one seed answered to the test examples: which two say the same, and which examples show it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raw2s.pipeline.seed_plan import SeedPlan
from raw2s.pipeline.stage import Stage
from raw2s.report.examples import ExampleGroup, ShownAnswer, ShownExample
from raw2s.report.systems import list_systems
from raw2s.results import Agreement, Results

EXAMPLES_SHOWN = 3
"""Of a rule's examples."""


@dataclass(frozen=True, kw_only=True)
class OnTest:
    """One model's answers, in the order of the test examples."""

    texts: list[str]
    said: NDArray[np.object_]
    """(examples,): as the task reads them; the items of a list in any order are one answer."""
    right: NDArray[np.bool_]
    """(examples,): whether that is gold."""


def answered(plan: SeedPlan, folder: Callable[[Stage], Path]) -> dict[str, OnTest]:
    """By the stage that the model came out of, without the seed; `folder` is where a test's artifact lies."""
    return {test.labeler.model.name.partition("@")[0]: as_answered(test.predictions(folder(test))) for test in plan.tests}


def as_answered(predictions: Sequence[Mapping[str, Any]]) -> OnTest:
    """`predictions` as `raw2s.pipeline.testing_stages.Test` writes them."""
    said, gold = (np.array([_plain(row[key]) for row in predictions], dtype=object) for key in ("predicted", "gold"))
    return OnTest(texts=[row["output"] for row in predictions], said=said, right=said == gold)


def agreements(seeds: Sequence[Mapping[str, OnTest]], teachers: Sequence[str]) -> list[Agreement]:
    """Of every model with every teacher, named by their stages: the means over the seeds."""
    return [
        Agreement(
            stage=stage,
            teacher=teacher,
            same=float(np.mean([own[stage].said == own[teacher].said for own in seeds])),
            both_wrong=float(np.mean([~(own[stage].right | own[teacher].right) for own in seeds])),
        )
        for stage in seeds[0]
        for teacher in teachers
    ]


def choose_examples(answers: Mapping[str, OnTest], tested: Sequence[Mapping[str, Any]], results: Results) -> list[ExampleGroup]:
    """Where all differ, where the student is right and its best teacher wrong, and the reverse; the first few of each in test order.

    The student is the one with the highest score. `tested` are the test examples with their "prompt" and "target".
    """
    student = max(results.students, key=lambda own: own.score, default=None)
    teachers = [teacher.stage for teacher in results.tested]
    shown = teachers + ([] if student is None else [student.stage])
    said = np.array([answers[stage].said for stage in shown])
    rules: dict[str, NDArray[np.bool_]] = {}
    if len(shown) > 1:
        different = np.array([len(set(column)) for column in said.T]) == len(shown)
        rules["The teachers and the student all differ" if student else "The teachers all differ"] = different
    best = None if student is None else next((own for own in results.tested if own.name == student.best_teacher), None)
    if student is not None and best is not None:
        ours, theirs = answers[student.stage].right, answers[best.stage].right
        rules[f"The student is right where its best teacher, {best.name}, is wrong"] = ours & ~theirs
        rules[f"The student is wrong where its best teacher, {best.name}, is right"] = ~ours & theirs
    shown += [] if results.ceiling is None else [results.ceiling.stage]
    order = [system.stage for system in list_systems(results) if system.stage in shown]
    return [
        ExampleGroup(
            title=title,
            count=int(chosen.sum()),
            examples=[_shown(int(u), answers, order, tested) for u in np.flatnonzero(chosen)[:EXAMPLES_SHOWN]],
        )
        for title, chosen in rules.items()
    ]


def _shown(u: int, answers: Mapping[str, OnTest], order: Sequence[str], tested: Sequence[Mapping[str, Any]]) -> ShownExample:
    found = [(stage, answers[stage]) for stage in order]
    return ShownExample(
        prompt=tested[u]["prompt"].strip(),
        gold=(tested[u]["target"] or "").strip(),
        answers=[ShownAnswer(stage=stage, text=own.texts[u].strip(), right=bool(own.right[u])) for stage, own in found],
    )


def _plain(value: Any) -> str:
    """One text for what is one answer."""
    return json.dumps(sorted(map(json.dumps, value)) if isinstance(value, list) else value)
