"""The rows of a file to answer, in chunks that anybody can read alone: JSON lines, CSV with a header line, or a text a line.

A row that cannot be read is a row with its problem, so that nothing of the file is lost. Rows count from 1: JSON lines and CSV records
that are not empty, of texts all lines.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

SUFFIXES = (".jsonl", ".csv", ".txt")
CHUNK = 1000
"""Rows of a chunk."""
_BOM = b"\xef\xbb\xbf"

Raw = str | list[str] | ValueError
"""A line, the fields of a record, or why it is neither."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """The rows from number `first` on that lie in the bytes from `start` to `end` of the file."""

    first: int
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class InputRow:
    number: int
    values: dict[str, Any]
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A file of rows, and its columns: of CSV the header's, of texts the one that a line is the value of; none of JSON lines."""

    file: Path
    columns: tuple[str, ...]
    start: int
    """Of the first row, in bytes."""

    @property
    def texts(self) -> bool:
        """Whether a row is a text and has no columns of its own."""
        return self.file.suffix == ".txt"

    def chunks(self, size: int = CHUNK) -> Iterator[Chunk]:
        """The whole file."""
        first, start, rows, end = 1, self.start, 0, self.start
        for _, end in self._raw(self.start, None):
            rows += 1
            if rows == size:
                yield Chunk(first=first, start=start, end=end)
                first, start, rows = first + rows, end, 0
        if rows:
            yield Chunk(first=first, start=start, end=end)

    def rows(self, chunk: Chunk) -> list[InputRow]:
        """The chunk's, in order."""
        raws = enumerate((raw for raw, _ in self._raw(chunk.start, chunk.end)), start=chunk.first)
        return [self._row(number, raw) for number, raw in raws]

    def _row(self, number: int, raw: Raw) -> InputRow:
        if isinstance(raw, ValueError):
            return InputRow(number=number, values={}, problem=str(raw))
        try:
            values = self._values(raw)
            json.dumps(values, ensure_ascii=False).encode()  # half a character is no text, and breaks a tokenizer
        except UnicodeError:
            return InputRow(number=number, values={}, problem="it holds half a character, or is not UTF-8; mend the text")
        except ValueError as error:
            return InputRow(number=number, values={}, problem=str(error))
        return InputRow(number=number, values=values)

    def _values(self, raw: str | list[str]) -> dict[str, Any]:
        if isinstance(raw, list):
            if len(raw) > len(self.columns):
                raise ValueError("more values than columns; quote what holds a comma")
            return dict(zip(self.columns, raw, strict=False))
        if self.columns:
            return {self.columns[0]: raw}
        try:
            values = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not JSON ({error}); mend the line") from None
        if not isinstance(values, dict):
            raise ValueError(f"a {type(values).__name__} and no JSON object; write {{column: value}} a line")
        return values

    def _raw(self, start: int, end: int | None) -> Iterator[tuple[Raw, int]]:
        """Every line or record, and the byte after it."""
        with self.file.open("rb") as stream:
            stream.seek(start)
            yield from _records(stream, end) if self.file.suffix == ".csv" else _lines(stream, end, blank=self.texts)


def open_table(file: Path, columns: list[str]) -> Table:
    """The rows of `file` for a prompt of these columns. Raises ValueError, in one line, for a file that cannot be rows."""
    if file.suffix not in SUFFIXES:
        raise ValueError(f"{file}: its name ends in none of {', '.join(SUFFIXES)}; convert it")
    try:
        with file.open("rb") as stream:
            start = len(_BOM) if stream.read(len(_BOM)) == _BOM else 0
            stream.seek(start)
            header, end = next(_records(stream, None), ([], start)) if file.suffix == ".csv" else ([], start)
    except OSError as error:
        raise ValueError(f"{file}: cannot be read ({error.strerror}); correct the path") from None
    if file.suffix == ".jsonl":
        return Table(file=file, columns=(), start=start)
    if file.suffix == ".txt":
        if len(columns) > 1:
            raise ValueError(f"{file}: the prompt has columns {', '.join(columns)}, and a text has one; give .jsonl or .csv")
        return Table(file=file, columns=tuple(columns), start=start)
    if not isinstance(header, list) or not header:
        raise ValueError(f"{file}: has no header line with the columns' names; write it first")
    return Table(file=file, columns=tuple(header), start=end)


def _lines(stream: BinaryIO, end: int | None, *, blank: bool) -> Iterator[tuple[Raw, int]]:
    """With `blank` those too that hold nothing."""
    position = stream.tell()
    while (end is None or position < end) and (line := stream.readline()):
        position += len(line)
        if blank or line.strip():
            yield line.rstrip(b"\r\n").decode("utf-8", "surrogateescape"), position


def _records(stream: BinaryIO, end: int | None) -> Iterator[tuple[Raw, int]]:
    """CSV may have line ends inside a record; the reader takes no more lines than it needs for one."""
    position = stream.tell()

    def lines() -> Iterator[str]:
        nonlocal position
        while (end is None or position < end) and (line := stream.readline()):
            position += len(line)
            yield line.decode("utf-8", "surrogateescape")

    reader = csv.reader(lines(), strict=True)
    while True:
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield ValueError(f"not CSV ({error}); mend the record"), position
            continue
        if record:  # an empty line is none
            yield record, position
