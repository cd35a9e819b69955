"""A file of rows to a file of answers, as a stream: every row goes out once, in order, the unreadable ones with their problem."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from raw2s.labeling.prompts import Unit, answer, prompt_units
from raw2s.tasks.sources import row_id
from raw2s.tasks.template import columns_of, pieces_of
from raw2s.use.asking import MostDoubtful
from raw2s.use.rows import Chunk, InputRow, Table, open_table
from raw2s.use.sheet import find_sheet
from raw2s.use.student import Student
from raw2s.use.threshold import Threshold

AnsweredRow = dict[str, Any]
"""A row: `row` (its number), `id`, `prompt`, and the fields of an `Answer` or `error`."""
Spread = Callable[[str, Table], Iterator[list[AnsweredRow]]]
"""(where the student is, the rows) -> the chunks answered in order, by others than this process."""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What became of the rows."""

    rows: int
    abstained: int
    without_answer: int
    first_problem: str


def predict_file(
    source: str,
    file: Path,
    output: Path,
    *,
    threshold: Threshold | None = None,
    asked: MostDoubtful | None = None,
    spread: Spread | None = None,
) -> Counted:
    """Answer the rows of `file` into `output` by the student at `source`, here unless there is a `spread`.

    With a `threshold` every answer says whether the student abstains; `asked` sees every row. Raises ValueError, in one line, before
    anything is written.
    """
    folder, sheet = find_sheet(source)
    table = open_table(file, columns_of(pieces_of(sheet.prompt)))
    for made in (output, *([] if asked is None else [asked.file])):
        if made.resolve() == file.resolve():
            raise ValueError(f"{made} is the input; give another file to write")
        if not made.parent.is_dir():
            raise ValueError(f"{made}: no folder {made.parent}; make it, or correct the path")
    if asked is not None and asked.file.resolve() == output.resolve():
        raise ValueError(f"{output} would hold answers and rows to ask about; give another --ask-file")
    answered: Iterable[list[AnsweredRow]]
    if spread is None:
        student = Student.of(folder, sheet)
        answered = (answer_chunk(student, table, chunk) for chunk in table.chunks())
    else:
        answered = spread(str(folder) if Path(source).is_dir() else source, replace(table, file=file.resolve()))
    counted = write_answers(answered, output, threshold=threshold, asked=asked)
    if asked is not None:
        asked.write(sheet.form)
    return counted


def answer_chunk(student: Student, table: Table, chunk: Chunk) -> list[AnsweredRow]:
    """The rows of a chunk, answered, in order; a row that cannot be has the reason under `error`."""
    column = None if table.texts else student.sheet.id
    prompts: dict[int, str] = {}
    answered: dict[int, AnsweredRow] = {}
    for row in table.rows(chunk):
        answered[row.number] = {"row": row.number, "id": _id(row, column)}
        try:
            if row.problem is not None:
                raise ValueError(row.problem)
            prompts[row.number] = student.sheet.prompt_of(row.values)
        except ValueError as error:
            answered[row.number]["error"] = str(error)

    def teacher(unit: Unit) -> list[dict[str, Any]]:
        return [_plain(asdict(given)) for given in student.answer_prompts(unit["prompts"])]

    for unit in prompt_units(list(prompts), list(prompts.values()), student.sheet.batch_size):
        for given in answer(teacher, unit):
            number = given.pop("id")
            fields = {"error": given["reason"]} if "reason" in given else given
            answered[number] |= {"prompt": prompts[number], **fields}
    return list(answered.values())


def write_answers(
    chunks: Iterable[list[AnsweredRow]], output: Path, *, threshold: Threshold | None, asked: MostDoubtful | None
) -> Counted:
    """One JSON line a row, without its prompt."""
    rows = abstained = without_answer = 0
    first_problem = ""
    with output.open("w", encoding="utf-8") as stream:
        for row in (row for chunk in chunks for row in chunk):
            rows += 1
            if asked is not None:
                asked.see(row)
            written = {name: value for name, value in row.items() if name != "prompt"}
            if "error" in row:
                without_answer += 1
                first_problem = first_problem or f"row {row['row']}: {row['error']}"
            elif threshold is not None:
                written["abstain"] = row["probability"] < threshold.probability
                abstained += written["abstain"]
            stream.write(json.dumps(written) + "\n")
    return Counted(rows=rows, abstained=abstained, without_answer=without_answer, first_problem=first_problem)


def _id(row: InputRow, column: str | None) -> int | None:
    """What label files call the row: its own id, or its number from 0 where the task numbers them; None for no whole number."""
    if column is None:
        return row.number - 1
    try:
        return row_id(row.values.get(column))
    except ValueError:
        return None


def _plain(value: Any) -> Any:
    """Without the fields that the student's form or loss does not have."""
    return {name: inner for name, inner in value.items() if inner is not None}
