"""A prompt's template: a text with columns in braces, such as `{premise}\\n{hypothesis}\\n`; `{{` and `}}` are braces themselves."""

import math
import string
from collections.abc import Mapping, Sequence
from typing import Any

Pieces = Sequence[tuple[str, str | None]]
"""A template as (text, the column after it, or None at its end)."""


def pieces_of(template: str) -> Pieces:
    """The template in pieces. Raises ValueError for braces that hold no column's name, and for a template without a column."""
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"{template!r} has a brace too many or too few ({error}); write {{{{ for a brace itself") from None
    for _, column, spec, conversion in parsed:
        if column == "" or spec or conversion:
            raise ValueError(
                f"{template!r} has braces that hold no column's name alone; write {{column}}, and {{{{ for a brace itself"
            )
    if not any(column for _, column, _, _ in parsed):
        raise ValueError(f"{template!r} holds no column, so every prompt would be the same; write one as {{column}}")
    return [(text, column) for text, column, _, _ in parsed]


def columns_of(pieces: Pieces) -> list[str]:
    """The columns, each once, in the order of the template."""
    return list(dict.fromkeys(column for _, column in pieces if column is not None))


def filled(pieces: Pieces, values: Mapping[str, Any], key: str) -> str:
    """The prompt of a row. Raises ValueError for a column that it lacks (`key` is what to correct), no text in it, or an empty prompt."""
    prompt = "".join(text + ("" if column is None else _text(values, column, key)) for text, column in pieces)
    if not prompt.strip():
        raise ValueError("the prompt is empty; give at least one of its columns a text, or remove the row")
    return prompt


def value_of(values: Mapping[str, Any], column: str, key: str) -> Any:
    """A row's value. Raises ValueError where there is no such column; `key` names it in what the user wrote."""
    if column not in values:
        known = ", ".join(map(str, values)) or "none"
        raise ValueError(f"there is no column {column!r}, and there are {known}; correct {key}, or add it")
    return values[column]


def _text(values: Mapping[str, Any], column: str, key: str) -> str:
    value = value_of(values, column, key)
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return str(value)
    raise ValueError(f"column {column!r} is {value!r}, and a prompt is made of texts and numbers; write it as a text")
