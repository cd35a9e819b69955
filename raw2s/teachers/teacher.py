"""What a teacher is: a model that labels B on actors of its own, or something that gives labels without one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from raw2s.labels.label_files import Annotation
from raw2s.section import Name, Section
from raw2s.tasks import Task


class TeacherSection(Section):
    """What every teacher may be told; a kind's own section adds its knobs."""

    name: Name
    """What the teacher is called in tables and folders."""
    kind: str = "model"
    """A model (model), a file that holds labels of B (labels), or module:name of a kind outside the package."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The examples of B that a teacher without a model labels: it may leave some out, and answer others too."""

    prompts: Mapping[int, str]
    task: Task


@dataclass(frozen=True, kw_only=True)
class TeacherKind:
    """A kind of teacher as plain functions of its section."""

    section: type[TeacherSection]
    fingerprint: Callable[[Any], str]
    """What identifies its content in an artifact's key. Raises ValueError, in one line, where it cannot be used."""
    annotate: Callable[[Any, Asked], list[Annotation]] | None
    """Its labels; None: it is a model, which the pipeline trains, asks for answers and scores, and tests.

    Raises ValueError, in one line with what to do, for labels that cannot be used.
    """
