"""What a student's folder says beside its weights, in `raw2s.json`: how it is asked, how its logits are read, what it is worth."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from raw2s.choices import Chosen
from raw2s.form import FormName
from raw2s.losses import EvidenceOf
from raw2s.methods import LOSSES, Loss, loss_of
from raw2s.models.source import student_folder
from raw2s.record import Interval, Record
from raw2s.tasks.template import columns_of, filled, pieces_of
from raw2s.use.threshold import Threshold, threshold_for

FILE = "raw2s.json"
Row = str | Mapping[str, Any]
"""The columns of the prompt's template, or the text of its only one."""
_LOSS = Chosen("name", LOSSES, Loss)


class Devel(Record):
    """The student's answers to the validation examples, of which none was learned from."""

    probability: list[float]
    """That it gave its answer, an example each."""
    right: list[bool]


class TestScore(Record):
    metric: str
    title: str
    """The metric as tables write it."""
    value: float
    ci95: Interval
    """Of a bootstrap over the test examples."""
    examples: int


class Sheet(Record):
    """The whole of `raw2s.json`."""

    version: str
    """Of raw2s, which wrote it."""
    run: str
    student: str
    """The stage that the model came out of, as the run's results.json names it, with `@seed` where there are several."""
    base_model: str
    """What it was before."""
    task: str
    form: FormName
    classes: list[str]
    """In the order of the logits; empty for text."""
    prompt: str
    """The template (`raw2s.tasks.template`): a row's columns in the text that the student learned to read."""
    chat: bool
    """Whether that is a user's message in the model's chat template."""
    id: str | None
    """The column of the ids that label files use; None where they are the rows' numbers, from 0."""
    loss: dict[str, Any] | None
    """The settings of the loss that says how logits are read as a Dirichlet; None where they are a softmax's."""
    beams: int | None
    """Text: how it was tested."""
    max_new_tokens: int | None
    """Text: the longest answer, end marker included."""
    batch_size: int
    """Prompts answered together."""
    test: TestScore
    devel: Devel | None
    """None while it is being asked."""

    @property
    def evidence(self) -> EvidenceOf | None:
        """Of logits; None for a softmax. Raises ValueError for a loss that is not known here."""
        if self.loss is None:
            return None
        section: Any = _LOSS.validate(self.loss)
        evidence = loss_of(section).evidence
        return None if evidence is None else evidence(section)

    def prompt_of(self, row: Row) -> str:
        """The text that the student learned to read. Raises ValueError for a row that does not fill the template."""
        pieces = pieces_of(self.prompt)
        if isinstance(row, str):
            columns = columns_of(pieces)
            if len(columns) > 1:
                raise ValueError(f"a text alone does not fill the columns {', '.join(columns)}; give a row with each by its name")
            row = {columns[0]: row}
        return filled(pieces, row, "the column's name")

    def threshold(self, accuracy: float) -> Threshold:
        """The probability below which to abstain, so that what is left has this accuracy on devel. Raises ValueError as `threshold_for`."""
        if self.devel is None:
            raise ValueError(f"{FILE} has no answers to devel; make the folder with `raw2s export`")
        return threshold_for(accuracy, self.devel.probability, self.devel.right)

    def write(self, folder: Path) -> None:
        """A line a field: devel is long."""
        lines = (f" {json.dumps(name)}: {json.dumps(value)}" for name, value in self.model_dump(mode="json").items())
        (folder / FILE).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def read_sheet(folder: Path) -> Sheet:
    """Of a student's folder. Raises ValueError, in one line, where there is none or it cannot be read."""
    try:
        return Sheet.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
    except OSError:
        raise ValueError(
            f"{folder}: no {FILE} here, so nothing says how this model is asked; give a folder that `raw2s export` made"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise ValueError(
            f"{folder / FILE}: {place}: {first['msg'].lower()}; make the folder again with `raw2s export` of this version"
        ) from None


def find_sheet(source: str) -> tuple[Path, Sheet]:
    """The folder of a path or a hub id, and its sheet. Raises ValueError, in one line, where there is none that can be used.

    A hub's sheet may name no loss outside the package: it would have a module imported.
    """
    folder = student_folder(source)
    sheet = read_sheet(folder)
    if not Path(source).is_dir() and sheet.loss is not None and ":" in str(sheet.loss.get("name")):
        raise ValueError(
            f"{source}: its loss is code outside raw2s; fetch the folder, look at {FILE}, and give the folder's path"
        )
    return folder, sheet
