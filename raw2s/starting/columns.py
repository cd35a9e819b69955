"""Which columns of a data file are the prompt, the answer and the id; what can be read in two ways is refused, not guessed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raw2s.form import FormName
from raw2s.starting.label_columns import LabelColumns
from raw2s.tasks.own_rows import MetricName, parse_entities
from raw2s.tasks.sources import SourceRow, row_id

ANSWER_NAMES = ("label", "class", "category", "intent", "answer", "target", "output", "response", "summary", "headline")
"""What people call the column of the answers."""
MOST_CLASSES = 100
REPEATS = 3
"""How often a class occurs on average, at the least, in a column of classes."""
WORDS, CLASS_WORDS = 2, 3
"""Of a text on average at the least; of the classes in a column whose name does not say that it holds them, fewer than so many."""

Values = Mapping[str, Sequence[Any]]
"""By column its values, row by row; None where there is none."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What a data file's columns are."""

    texts: tuple[str, ...]
    """Those that a prompt is made of."""
    answer: str
    form: FormName
    metric: MetricName
    classes: tuple[str, ...]
    """Sorted: those of the answers and of label files; empty for text."""
    only_labels: tuple[str, ...]
    """Those of them that only label files hold."""
    id: str | None
    ids: tuple[int, ...]
    """Row by row: of the column, or the row's number."""
    answered: tuple[bool, ...]
    """Row by row."""
    left_out: tuple[str, ...]
    """The columns that are none of these."""


def look_at_data(file: Path, rows: Sequence[SourceRow], labels: Sequence[LabelColumns]) -> Columns:
    """Raises ValueError, in one line that says what to name or add, where the columns can be read in no way or in two."""
    names = list(dict.fromkeys(column for row in rows for column in row.values))
    values = {name: [_value(row.values.get(name)) for row in rows] for name in names}
    form = _form(labels)
    ids = _id_column(values)
    answer, form = _answer(file, {name: own for name, own in values.items() if name != ids}, form, labels)
    texts = _texts(file, {name: own for name, own in values.items() if name not in (answer, ids)})
    said = [value for value in values[answer] if value is not None]
    classes = {_class_name(value) for value in said} if form == "classes" else set()
    labeled = {name for own in labels for name in own.classes}
    metric: MetricName = "accuracy" if form == "classes" else "slu_f1" if all(map(_is_slots, said)) else "exact_match"
    return Columns(
        texts=tuple(texts),
        answer=answer,
        form=form,
        metric=metric,
        classes=tuple(sorted(classes | labeled)),
        only_labels=tuple(sorted(labeled - classes)),
        id=ids,
        ids=tuple(range(len(rows)) if ids is None else map(row_id, values[ids])),
        answered=tuple(value is not None for value in values[answer]),
        left_out=tuple(name for name in names if name not in (*texts, answer, ids)),
    )


def _value(value: Any) -> Any:
    """None for what is empty, as a cell of CSV may be."""
    return None if value is None or (isinstance(value, str) and not value.strip()) else value


def _form(labels: Sequence[LabelColumns]) -> FormName | None:
    forms = {own.form: own.file for own in labels}
    if len(forms) > 1:
        raise ValueError(f"{forms['classes']} labels with classes and {forms['text']} with texts; give files of one kind")
    return next(iter(forms), None)


def _id_column(values: Values) -> str | None:
    """`id`, else the first whose name ends so; only where every row has a whole number of its own."""
    for name in sorted((name for name in values if name.lower().endswith("id")), key=lambda name: name.lower() != "id"):
        try:
            if len({row_id(value) for value in values[name]}) == len(values[name]):
                return name
        except ValueError:
            continue
    return None


def _answer(file: Path, values: Values, form: FormName | None, labels: Sequence[LabelColumns]) -> tuple[str, FormName]:
    """The column of the answers, and what they are."""
    named = [name for name in values if name.lower() in ANSWER_NAMES and any(value is not None for value in values[name])]
    repeating = [name for name, own in values.items() if _repeats(own)]
    short = [name for name in repeating if _words(values[name]) < CLASS_WORDS]
    if form == "text":
        found = [name for name in named if name not in repeating] or named
    elif known := {name for own in labels for name in own.classes}:
        found = [name for name, own in values.items() if _shared(own, known) > 0.5]
    elif form == "classes":
        found = [name for name in named if name in repeating] or short
    else:
        found = named or short
    found = [name for name in found if name.lower() == ANSWER_NAMES[0]] or found
    if len(found) == 1:
        return found[0], form or ("classes" if found[0] in repeating else "text")
    if found:
        raise ValueError(f"{file}: the answer may be column {' or '.join(found)}; remove all but one, or name one of them label")
    raise ValueError(
        f"{file}: no column of {', '.join(values)} holds the answers, and without some no model can be tested; add a column "
        f"{'answer' if form == 'text' else 'label'}, in which rows to be labeled may be empty"
    )


def _texts(file: Path, values: Values) -> list[str]:
    """The columns that hold sentences; where none does, the only one that holds words."""
    filled = [name for name, own in values.items() if all(isinstance(value, str) for value in own)]
    sentences = [name for name in filled if _words(values[name]) >= WORDS]
    if sentences or len(filled) == 1:
        return sentences or filled
    raise ValueError(
        f"{file}: none of its other columns ({', '.join(values) or 'there are none'}) holds a text of {WORDS} words or more in every "
        "row; fill its gaps, or add one"
    )


def _repeats(values: Sequence[Any]) -> bool:
    """Whether they can be names of classes, of which most come again."""
    said = [value for value in values if value is not None]
    if not said or not all(_is_class(value) for value in said):
        return False
    return 2 <= len(set(map(_class_name, said))) <= min(MOST_CLASSES, len(said) // REPEATS)


def _words(values: Sequence[Any]) -> float:
    """On average, of those that are there."""
    said = [str(value) for value in values if value is not None]
    return sum(len(text.split()) for text in said) / max(1, len(said))


def _is_class(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _class_name(value: Any) -> str:
    return str(value).strip()


def _shared(values: Sequence[Any], known: set[str]) -> float:
    """The share of the classes that column and label files have in common, of those of whichever has fewer."""
    said = {_class_name(value) for value in values if value is not None and _is_class(value)}
    return len(said & known) / max(1, min(len(said), len(known)))


def _is_slots(value: Any) -> bool:
    return isinstance(value, str) and parse_entities(value) is not None
