"""A label file without labels, for people to fill in: ids, an empty column for the answer, and what helps to give it."""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from raw2s.form import FormName

SUFFIXES = (".jsonl", ".csv")
ANSWER: dict[FormName, str] = {"classes": "label", "text": "text"}
"""The column to fill in, by what an answer is."""


def check_suffix(file: Path) -> None:
    """Raises ValueError for a file that could not be read as labels."""
    if file.suffix not in SUFFIXES:
        raise ValueError(f"{file}: its name ends in none of {', '.join(SUFFIXES)}, which label files do; rename it")


def write_to_fill_in(file: Path, form: FormName, items: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
    """A row an item: its id, the empty answer, and what is shown beside it, the same columns for all."""
    rows = [{"id": i, ANSWER[form]: None, **shown} for i, shown in items]
    with file.open("w", encoding="utf-8", newline="") as stream:
        if file.suffix == ".csv":
            writer = csv.DictWriter(stream, list(rows[0]) if rows else ["id", ANSWER[form]])
            writer.writeheader()
            writer.writerows(rows)
        else:
            stream.writelines(json.dumps(row) + "\n" for row in rows)
