"""The two forms of a label, text and classes: what a teacher's answers look like, and how they are read and learned from."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from raw2s.form import FormName
from raw2s.labels.label_files import Annotation, class_probabilities, ranked_texts
from raw2s.labels.rows import RowKind, TextTarget, TrainingRow
from raw2s.labels.table import BEAMS, CLASSES, Answer
from raw2s.tasks import Example, Task


@dataclass(frozen=True, kw_only=True)
class Form:
    """What differs between labels that are texts and labels that are classes, for all who handle labels."""

    name: FormName
    schema: pa.Schema
    """Of a teacher's own answers."""
    column: str
    """Of that schema: what the teacher said."""
    scored: bool
    """Whether every teacher that is a model scores the answers of all (Eq. 6)."""
    row_kind: RowKind
    """Of the rows that a student learns from."""
    learned: Callable[[Example, Task], TrainingRow]
    """Ground truth as a training row."""
    said: Callable[[Any, Sequence[str]], str]
    """The first choice in one answer's `column`: a text, or the name of one of the task's classes."""
    from_annotations: Callable[[Sequence[Annotation], Iterable[int]], list[Answer]]
    """A label file's annotations as answers, in the order of the ids; ids without one are left out."""


def logit_rows(probabilities: Mapping[int, Sequence[float]]) -> list[Answer]:
    """Probabilities as logits, whose softmax they are; that of 0 is -inf."""
    with np.errstate(divide="ignore"):
        return [{"id": i, "logits": np.log(own).tolist()} for i, own in probabilities.items()]


def _learned_text(example: Example, task: Task) -> TrainingRow:
    target = TextTarget(text=str(example["target"]), weights=[1.0])
    return TrainingRow(id=example["id"], prompt=example["prompt"], targets=[target])


def _learned_class(example: Example, task: Task) -> TrainingRow:
    one_hot = [float(name == example["target"]) for name in task.classes]
    return TrainingRow(id=example["id"], prompt=example["prompt"], probabilities=one_hot)


def _texts(annotations: Sequence[Annotation], ids: Iterable[int]) -> list[Answer]:
    texts = ranked_texts(annotations)
    return [{"id": i, "texts": texts[i]} for i in ids if i in texts]


def _logits(annotations: Sequence[Annotation], ids: Iterable[int]) -> list[Answer]:
    probabilities = class_probabilities(annotations)
    return logit_rows({i: probabilities[i] for i in ids if i in probabilities})


TEXT = Form(
    name="text",
    schema=BEAMS,
    column="texts",
    scored=True,
    row_kind="targets",
    learned=_learned_text,
    said=lambda texts, classes: texts[0],
    from_annotations=_texts,
)
CLASS = Form(
    name="classes",
    schema=CLASSES,
    column="logits",
    scored=False,
    row_kind="probabilities",
    learned=_learned_class,
    said=lambda logits, classes: classes[int(np.argmax(logits))],
    from_annotations=_logits,
)
FORMS: dict[FormName, Form] = {"text": TEXT, "classes": CLASS}
