"""How a row of one's own data becomes an example: columns in a prompt, an answer, an id; every mistake named with file and row."""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from pydantic import field_validator, model_validator

from raw2s.form import FormName
from raw2s.tasks.sources import SourceRow, row_id
from raw2s.tasks.task import Example, TaskSection
from raw2s.tasks.template import filled, pieces_of, value_of

MetricName = Literal["accuracy", "macro_f1", "exact_match", "rouge_l", "slu_f1"]
METRICS: dict[FormName, tuple[MetricName, ...]] = {
    "classes": ("accuracy", "macro_f1"),
    "text": ("exact_match", "rouge_l", "slu_f1"),
}


class RowSection(TaskSection):
    """What is read of a row."""

    form: FormName
    """What is given: one of some classes, or a text."""
    prompt: str
    """What a model reads, with columns in braces, such as "{premise}\\n{hypothesis}\\n"; {{ and }} are braces themselves."""
    chat: bool = False
    """Whether the prompt is a user's message, put into the model's own chat template."""
    answer: str
    """The column of the answer: a class's name, or the text itself (for slu_f1 a JSON object, {"type": "value"})."""
    metric: MetricName
    """For classes accuracy or macro_f1, for text exact_match, rouge_l or slu_f1."""
    id: str | None = None
    """The column of the ids, whole numbers that label files refer to; null numbers the rows of every source from 0."""

    @field_validator("prompt")
    @classmethod
    def _prompt_can_be_filled(cls, prompt: str) -> str:
        pieces_of(prompt)
        return prompt

    @model_validator(mode="after")
    def _metric_fits_the_form(self) -> "RowSection":
        if self.metric not in METRICS[self.form]:
            raise ValueError(f"metric: {self.metric} does not fit form: {self.form}; name one of {', '.join(METRICS[self.form])}")
        return self


def answer_parser(metric: MetricName) -> Callable[[str], Any | None]:
    """From a written answer to what the metric compares."""
    if metric == "slu_f1":
        return parse_entities
    return str.strip


def parse_entities(text: str) -> list[list[str]] | None:
    """The (type, value) pairs of a JSON object whose values are texts or lists of texts; None for anything else."""
    try:
        pairs = json.loads(text, object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        return None
    if not isinstance(pairs, tuple):
        return None
    entities = [[kind, value] for kind, given in pairs for value in (given if isinstance(given, list) else [given])]
    return entities if all(isinstance(value, str) and value.strip() for _, value in entities) else None


def read_examples(section: RowSection, rows: Sequence[SourceRow], *, may_lack: bool) -> list[Example]:
    """An example a row, in their order; with `may_lack`, target and gold are None where there is no answer.

    Raises ValueError, in one line that begins with the row's place, for what cannot be used.
    """
    pieces = pieces_of(section.prompt)
    examples: list[Example] = []
    place_of: dict[int, str] = {}
    for number, row in enumerate(rows):
        try:
            name = number if section.id is None else _id(row, section.id)
            if name in place_of:
                raise ValueError(f"id {name} occurs twice, first in {place_of[name]}; give every row its own")
            prompt = filled(pieces, row.values, "task.prompt")
            answer = row.values.get(section.answer) if may_lack else value_of(row.values, section.answer, "task.answer")
            target = _target(section, answer)
            if target is None and not may_lack:
                raise ValueError(f"column {section.answer!r} is empty; give the answer (only rows of task.student may lack one)")
            gold = None if target is None else answer_parser(section.metric)(target)
            if target is not None and gold is None:
                raise ValueError(f'the answer {target!r} is no JSON object of texts; write it as {{"type": "value"}}')
        except ValueError as error:
            raise ValueError(f"{row.place}: {error}") from None
        place_of[name] = row.place
        examples.append(Example(id=name, prompt=prompt, target=target, gold=gold))
    return examples


def _id(row: SourceRow, column: str) -> int:
    value = value_of(row.values, column, "task.id")
    try:
        return row_id(value)
    except ValueError as error:
        raise ValueError(f"{error}; correct it, or leave task.id out") from None


def _target(section: RowSection, value: Any) -> str | None:
    """The answer as a model writes it; None where the row has none."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or (isinstance(value, str) and not value.strip()):
        return None
    if section.form == "text":
        if isinstance(value, str):
            return value
        raise ValueError(f"the answer is {value!r} and no text; write it in quotation marks")
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, float) and value.is_integer():  # a column of whole numbers with gaps, as data frames write it
        return str(int(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"the answer {value!r} is no class's name; write a text or a whole number")
