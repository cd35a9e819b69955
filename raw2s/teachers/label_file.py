"""A teacher that is a file of labels: people, rules, or models that ran elsewhere (docs/labeling.md has the columns)."""

from pathlib import Path

from raw2s.labels.label_files import Annotation, file_fingerprint, read_label_file
from raw2s.section import Placement
from raw2s.teachers.teacher import Asked, TeacherKind, TeacherSection


class _Where(Placement):
    file: Path
    """A .jsonl, .csv or .parquet file with id and label, probabilities or text. Its content is in the key, not its place."""


class LabelFileSection(_Where, TeacherSection):
    kind: str = "labels"


def _annotate(section: LabelFileSection, asked: Asked) -> list[Annotation]:
    return read_label_file(section.file, asked.task.classes)


LABEL_FILE = TeacherKind(section=LabelFileSection, fingerprint=lambda section: file_fingerprint(section.file), annotate=_annotate)
