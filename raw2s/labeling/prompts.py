"""Units of work, which are fixed lists of prompts, and what a model answers to one. Needs no Ray."""

from collections.abc import Callable, Sequence
from typing import Any

from raw2s.labels.table import Answer

Unit = dict[str, list[Any]]
"""`ids` and `prompts`, and for scoring `candidates`, one list of texts a prompt."""
Teacher = Callable[[Unit], list[Answer]]
"""Answers a unit: one row a prompt, in order. Raises ValueError for a prompt that it cannot answer."""


def prompt_units(
    ids: Sequence[int], prompts: Sequence[str], size: int, candidates: dict[int, list[str]] | None = None
) -> list[Unit]:
    """The prompts in units of `size`, like lengths together: less padding, and the same units in every run."""
    order = sorted(range(len(ids)), key=lambda i: (len(prompts[i]), ids[i]))
    chunks = [order[start : start + size] for start in range(0, len(order), size)]
    units: list[Unit] = [{"ids": [ids[i] for i in chunk], "prompts": [prompts[i] for i in chunk]} for chunk in chunks]
    if candidates is not None:
        for unit in units:
            unit["candidates"] = [candidates[i] for i in unit["ids"]]
    return units


def answer(teacher: Teacher, unit: Unit) -> list[Answer]:
    """The teacher's answers to a unit. Where it refuses the unit, each prompt alone: those it still refuses get the reason."""
    try:
        rows = teacher(unit)
    except ValueError as error:
        if len(unit["ids"]) == 1:
            return [{"id": unit["ids"][0], "reason": " ".join(str(error).split())}]
        alone = [{column: [values[i]] for column, values in unit.items()} for i in range(len(unit["ids"]))]
        return [row for one in alone for row in answer(teacher, one)]
    return [{"id": i, **row} for i, row in zip(unit["ids"], rows, strict=True)]
