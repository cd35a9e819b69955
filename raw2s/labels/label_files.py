"""A teacher that is a file of labels: people, rules, or models that ran elsewhere.

JSON lines, CSV or Parquet; a row is one annotator's answer to one item:

    id             the item's id in B
    annotator      optional; without it every item may occur once
    label          the name of a class, or
    probabilities  one number a class, in the order of the task's classes, or a mapping from class to number (in CSV: as JSON)
    text           for generation

Other columns are not read. A row without an answer counts as absent, and so does an item without a row.
"""

import difflib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raw2s.storage.manifest import checksum
from raw2s.tasks.sources import SourceRow, file_rows, row_id


@dataclass(frozen=True)
class Annotation:
    """One annotator's answer to one item: `text`, or `probabilities` over the classes (one-hot for a hard label)."""

    id: int
    annotator: str
    text: str = ""
    probabilities: tuple[float, ...] = ()


def read_label_file(file: Path, classes: Sequence[str]) -> list[Annotation]:
    """The answers in `file`, in its order; `classes` is empty where they are texts.

    Raises ValueError, in one line that names the row and what to do, for what cannot be used.
    """
    rows = _rows(file)
    columns = set().union(*(row.values for row in rows))
    answers = ("label", "probabilities") if classes else ("text",)
    held = [column for column in answers if column in columns]
    if "id" not in columns or len(held) != 1:
        known = ", ".join(sorted(map(str, columns))) or "none"
        raise ValueError(f"{file}: needs a column id and one column {' or '.join(answers)}, and has {known}; name them so")
    seen: set[tuple[int, str]] = set()
    annotations = []
    for place, row in ((row.place, row.values) for row in rows):
        answer = row.get(held[0])
        try:
            item = _id(row.get("id"))
            annotator = "" if row.get("annotator") is None else str(row["annotator"])
            if (item, annotator) in seen:
                raise ValueError(
                    f"id {item} occurs twice"
                    + (
                        f" for annotator {annotator}; remove one"
                        if "annotator" in columns
                        else "; remove one, or add a column annotator"
                    )
                )
            seen.add((item, annotator))
            if answer is None or (answer == "" and file.suffix == ".csv"):
                continue
            annotations.append(
                Annotation(item, annotator, probabilities=_probabilities(answer, held[0], classes))
                if classes
                else Annotation(item, annotator, text=_text(answer))
            )
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
    return annotations


def file_fingerprint(file: Path) -> str:
    """What identifies a label file in an artifact key: its content."""
    return checksum(file)


def class_probabilities(annotations: Iterable[Annotation]) -> dict[int, list[float]]:
    """By id the mean of its annotators' probabilities."""
    by_id = defaultdict(list)
    for annotation in annotations:
        by_id[annotation.id].append(annotation.probabilities)
    return {i: np.mean(own, axis=0).tolist() for i, own in by_id.items()}


def ranked_texts(annotations: Iterable[Annotation]) -> dict[int, list[str]]:
    """By id its annotators' different texts, the most frequent first; of equals the one that the file holds first."""
    by_id = defaultdict(list)
    for annotation in annotations:
        by_id[annotation.id].append(annotation.text)
    return {i: [text for text, _ in Counter(texts).most_common()] for i, texts in by_id.items()}


def _rows(file: Path) -> list[SourceRow]:
    if not file.is_file():
        raise ValueError(f"no file {str(file)!r}; correct the path")
    rows = list(file_rows("file", file))
    if not rows:
        raise ValueError(f"{file}: holds no row; give labels, or remove the teacher")
    return rows


def _id(value: Any) -> int:
    try:
        return row_id(value)
    except ValueError as error:
        raise ValueError(f"{error}; correct it") from None


def _text(answer: Any) -> str:
    if not isinstance(answer, str):
        raise ValueError(f"the text is {answer!r}; write it as a string")
    return answer


def _probabilities(answer: Any, column: str, classes: Sequence[str]) -> tuple[float, ...]:
    if column == "label":
        _check_classes([str(answer)], classes)
        return tuple(float(name == str(answer)) for name in classes)
    if isinstance(answer, str):
        try:
            answer = json.loads(answer)
        except ValueError:
            answer = None
    if isinstance(answer, dict):
        answer = {name: value for name, value in answer.items() if value is not None}  # Parquet gives every row all names
        _check_classes(answer, classes)
        answer = [answer.get(name, 0.0) for name in classes]
    try:
        values = [float(value) for value in answer]
    except (TypeError, ValueError):
        values = []
    total = sum(values)
    if len(values) != len(classes) or not all(value >= 0 for value in values) or not math.isclose(total, 1, abs_tol=1e-3):
        found = f"they are {len(values)}, and sum to {total:g}" if values else "they cannot be read"
        raise ValueError(f"the probabilities are not {len(classes)} numbers of at least 0 that sum to 1: {found}; correct them")
    return tuple(value / total for value in values)


def _check_classes(names: Iterable[str], classes: Sequence[str]) -> None:
    for name in names:
        if name not in classes:
            close = difflib.get_close_matches(name, classes, n=1)
            advice = f"did you mean {close[0]}?" if close else f"name one of {', '.join(classes)}"
            raise ValueError(f"{name!r} is no class of the task; {advice}")
