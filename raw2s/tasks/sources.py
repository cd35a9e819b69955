"""Where a task's rows come from: a .jsonl, .csv or .parquet file, a folder of them, or a data set of the Hugging Face hub.

Every row knows its place, so that a mistake in it can be named in one line.
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raw2s.utf8 import read_utf8

SUFFIXES = (".jsonl", ".csv", ".parquet")
_HUB = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(:(?P<config>[\w.-]+))?(@(?P<split>[^@]+))?")
_NO_SCRIPTS = "scripts are no longer supported"


@dataclass(frozen=True)
class SourceRow:
    """One row. `place` is what an error begins with: `data/train.jsonl: row 3`.

    Rows count from 1; in JSON lines a row is a line of the file, in CSV the header is none.
    """

    place: str
    values: dict[str, Any]


def row_id(value: Any) -> int:
    """A row's id as a file gives it. Raises ValueError, which says no more than that, for what is no whole number of 64 bits."""
    try:
        if not isinstance(value, bool) and int(value) == float(value) and abs(int(value)) < 2**63:
            return int(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"{value!r} is no id, which is a whole number")


def read_source(key: str, source: str, split: str) -> list[SourceRow]:
    """The rows of what the config's `key` names: a file, a folder of files (by name), or a hub id `org/name[:config][@split]`.

    `split` is the hub's where `source` gives none. Raises ValueError, in one line that names the key or the file and its row.
    """
    path = Path(source)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        if not files:
            raise ValueError(
                f"{key}: folder {source!r} holds no .jsonl, .csv or .parquet file; put one there, or correct the path"
            )
        rows = [row for file in files for row in file_rows(key, file)]
    elif path.is_file():
        rows = list(file_rows(key, path))
    elif path.suffix in SUFFIXES or (len(path.parts) > 1 and path.parent.is_dir()):  # a path, and no hub id to go looking for
        raise ValueError(f"{key}: no file or folder {source!r}; correct the path")
    else:
        rows = list(_hub_rows(key, source, split))
    if not rows:
        raise ValueError(f"{key}: {source} is empty; give it at least one row")
    return rows


def read_part(key: str, data: str, *names: str) -> list[SourceRow]:
    """The part called by one of `names` (such as validation or valid): a file of the folder `data`, or the hub split `names[0]`.

    Raises ValueError as `read_source` does.
    """
    folder = Path(data)
    if not folder.is_dir():
        return read_source(key, data, names[0])
    for file in (folder / f"{name}{suffix}" for name in names for suffix in SUFFIXES):
        if file.is_file():
            return read_source(key, str(file), names[0])
    raise ValueError(f"{key}: folder {data!r} holds no {names[-1]}.jsonl (or .csv, .parquet); put it there, or correct the path")


def text_in(row: SourceRow, column: str) -> str:
    """The text in `column`. Raises ValueError, naming the row, where there is none."""
    value = row.values.get(column)
    if not isinstance(value, str):
        raise ValueError(f"{row.place}: column {column!r} is {value!r} and no text; correct the row")
    return value


def file_rows(key: str, file: Path) -> Iterator[SourceRow]:
    """The rows of one file. Raises ValueError as `read_source` does."""
    readers = {".jsonl": _json_lines, ".csv": _csv_rows, ".parquet": _parquet_rows}
    if file.suffix not in readers:
        raise ValueError(f"{key}: {str(file)!r} ends in none of {', '.join(SUFFIXES)}; convert it, or correct the path")
    try:
        for number, values in readers[file.suffix](file):
            yield SourceRow(f"{file}: row {number}", values)
    except (OSError, csv.Error, pa.ArrowException) as error:
        raise ValueError(f"{file}: cannot be read ({_reason(error)}); mend the file") from None


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _json_lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(read_utf8(file).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError as error:
            reason = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise ValueError(f"{file}: row {number}: not JSON ({reason}); mend the line") from None
        if not isinstance(values, dict):
            raise ValueError(
                f"{file}: row {number}: a {type(values).__name__} and no JSON object; write {{column: value}} a line"
            )
        yield number, values


def _csv_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    stream = io.StringIO(read_utf8(file), newline="")
    for number, values in enumerate(csv.DictReader(stream, strict=True), start=1):
        if None in values:  # where DictReader puts what has no column
            raise ValueError(f"{file}: row {number}: more values than columns; quote what holds a comma")
        yield number, values


def _parquet_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    yield from enumerate(pq.read_table(file).to_pylist(), start=1)


def _hub_rows(key: str, source: str, split: str) -> Iterator[SourceRow]:
    found = _HUB.fullmatch(source)
    if not found:
        raise ValueError(f"{key}: no file or folder {source!r}, and no hub id org/name[:config][@split]; correct it")
    from datasets import ClassLabel, load_dataset  # seconds to import  # noqa: PLC0415

    chosen = {"path": found["id"], "name": found["config"], "split": found["split"] or split}
    try:
        try:
            data = load_dataset(**chosen)
        except RuntimeError as error:
            if _NO_SCRIPTS not in str(error):
                raise
            data = load_dataset(**chosen, revision="refs/convert/parquet")  # the hub's own copy, made without our running code
    except Exception as error:  # the hub's library raises whatever its transport does
        raise ValueError(
            f"{key}: {source!r} is no file or folder here, and the hub does not give it ({_reason(error)}); correct it, or give local files"
        ) from None
    names = {column: feature for column, feature in data.features.items() if isinstance(feature, ClassLabel)}
    for number, values in enumerate(data.to_list(), start=1):
        for column, feature in names.items():
            # -1 is how data sets write that there is no answer
            values[column] = feature.int2str(values[column]) if values[column] not in (None, -1) else None
        yield SourceRow(f"{source}: row {number}", values)
