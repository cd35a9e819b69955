"""What is learned: the splits, the prompt, the target, the parser and the metric of each task, behind one `Task`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypedDict

import numpy as np

from raw2s.evaluation import f1_of_counts, slu_f1_counts
from raw2s.tasks.slot_filling import PROMPTS, parse_slots, slot_target
from raw2s.tasks.slurp import Row, train_rows


class Example(TypedDict):
    """All that later stages see of a task: `target` is text, or the name of a class; `gold` is what the metric compares."""

    id: int
    prompt: str
    target: str
    gold: Any


@dataclass(frozen=True)
class Task:
    """One task as plain functions.

    `utterance_counts(gold, predicted)` gives one row an utterance, (U, 3) or (U, 1), and `score(mean_counts)` maps the
    mean of such rows, (..., C), to the metric in [0, 1]: so a bootstrap over utterances is one matrix product.
    """

    name: str
    kind: Literal["generation", "classification"]
    metric: str
    classes: tuple[str, ...]
    prompts: dict[str, str]
    target: Callable[[Row, str], str]
    """(row, name of the prompt) to the text a model should write."""
    gold: Callable[[Row], Any]
    parse: Callable[[str], Any | None]
    utterance_counts: Callable[[Sequence[Any], Sequence[Any]], np.ndarray]
    score: Callable[[np.ndarray], np.ndarray]

    def examples(self, rows: Sequence[Row], prompt: str) -> list[Example]:
        """The rows as later stages see them, with the prompt called `prompt`."""
        template = self.prompts[prompt]
        return [
            Example(id=row["id"], prompt=template.format(text=row["text"]), target=self.target(row, prompt), gold=self.gold(row))
            for row in rows
        ]


@cache
def _scenarios() -> tuple[str, ...]:
    return tuple(sorted({row["scenario"] for row in train_rows()}))


def _correct(gold: Sequence[str], predicted: Sequence[str]) -> np.ndarray:
    return np.array([[float(g == p)] for g, p in zip(gold, predicted, strict=True)]).reshape(-1, 1)


def get_task(name: str) -> Task:
    """The task called `name`: `slurp_slots` (SLU-F1) or `slurp_scenario` (accuracy over 18 classes)."""
    if name == "slurp_slots":
        return Task(
            name,
            "generation",
            "slu_f1",
            (),
            PROMPTS,
            slot_target,
            lambda row: row["entities"],
            parse_slots,
            slu_f1_counts,
            f1_of_counts,
        )
    return Task(
        name, "classification", "accuracy", _scenarios(), {"short": "{text}\n"}, lambda row, prompt: row["scenario"],
        lambda row: row["scenario"], lambda text: text, _correct, lambda counts: counts[..., 0],
    )  # fmt: skip
