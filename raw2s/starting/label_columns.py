"""What a label file says of the task before a config names any: whether answers are classes or texts, which, and of which ids."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raw2s.form import FormName
from raw2s.tasks.sources import SourceRow, read_source, row_id

ANSWERS: dict[str, FormName] = {"label": "classes", "probabilities": "classes", "text": "text"}
"""By the column that holds answers, what they are."""


@dataclass(frozen=True, kw_only=True)
class LabelColumns:
    """A label file at a first look; `raw2s.labels.label_files` reads it strictly once the classes are known."""

    file: Path
    form: FormName
    classes: frozenset[str]
    """The names of classes that occur; none where probabilities are bare numbers, and of texts."""
    ids: frozenset[int]
    """Of the rows with an answer."""


def look_at_labels(file: Path) -> LabelColumns:
    """Raises ValueError, in one line that names the file and what to do, for what is no label file."""
    rows = read_source("label file", str(file), "")
    columns = {column for row in rows for column in row.values}
    held = [column for column in ANSWERS if column in columns]
    if "id" not in columns or not held:
        known = ", ".join(map(str, columns))
        raise ValueError(
            f"{file}: a label file needs a column id and one column label, probabilities or text, and has {known}; name them so"
        )
    answered = [row for row in rows if row.values.get(held[0]) not in (None, "")]
    return LabelColumns(
        file=file,
        form=ANSWERS[held[0]],
        classes=frozenset(name for row in answered for name in _classes(held[0], row.values[held[0]])),
        ids=frozenset(_id(row) for row in answered),
    )


def _id(row: SourceRow) -> int:
    try:
        return row_id(row.values.get("id"))
    except ValueError as error:
        raise ValueError(f"{row.place}: {error}; correct it") from None


def _classes(column: str, answer: Any) -> Sequence[str]:
    if column == "label":
        return [str(answer)]
    if column == "probabilities":
        try:
            given = json.loads(answer) if isinstance(answer, str) else answer
        except ValueError:
            given = None
        return list(given) if isinstance(given, dict) else []
    return []
