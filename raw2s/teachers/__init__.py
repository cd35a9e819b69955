"""The weak labelers: one file a kind, and here the names a config knows them by."""

from typing import Annotated

from raw2s.choices import Chosen, chosen
from raw2s.teachers.label_file import LABEL_FILE
from raw2s.teachers.model import MODEL, ModelSection
from raw2s.teachers.teacher import Asked, TeacherKind, TeacherSection

__all__ = ["TEACHERS", "AnyTeacher", "Asked", "ModelSection", "TeacherKind", "TeacherSection", "teacher_kind"]

TEACHERS: dict[str, TeacherKind] = {"model": MODEL, "labels": LABEL_FILE}

AnyTeacher = Annotated[TeacherSection, Chosen("kind", TEACHERS, TeacherKind, default="model")]
"""An entry of the config's `teachers`: the section of the kind it names."""


def teacher_kind(section: TeacherSection) -> TeacherKind:
    """What `TEACHERS`, or a module outside the package, holds under the section's kind."""
    return chosen(TEACHERS, section.kind, TeacherKind)
