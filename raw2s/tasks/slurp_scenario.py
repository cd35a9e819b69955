"""SLURP scenario classification: which of 18 scenarios an utterance belongs to, scored by accuracy."""

from functools import cache, partial
from typing import Literal

from raw2s.evaluation.metrics import ACCURACY
from raw2s.tasks.slurp import CREDIT, Row, SlurpSection, draw_examples, held_out_examples, train_rows
from raw2s.tasks.task import Example, Task, TaskKind


class ScenarioSection(SlurpSection):
    name: Literal["slurp_scenario"] = "slurp_scenario"
    """Scenario classification (accuracy, 18 classes)."""


@cache
def scenarios() -> tuple[str, ...]:
    """The 18 names, sorted."""
    return tuple(sorted({row["scenario"] for row in train_rows()}))


PROMPT = "{text}\n"


def _example(row: Row) -> Example:
    return Example(id=row["id"], prompt=PROMPT.format(text=row["text"]), target=row["scenario"], gold=row["scenario"])


def _make(section: ScenarioSection) -> Task:
    return Task(
        name=section.name,
        form="classes",
        classes=scenarios(),
        metric=ACCURACY,
        parse=str,
        nothing=None,
        draw=partial(draw_examples, section, _example),
        held_out=partial(held_out_examples, section, _example),
        credit=CREDIT,
        template=PROMPT,
    )


SLURP_SCENARIO = TaskKind(section=ScenarioSection, make=_make)
