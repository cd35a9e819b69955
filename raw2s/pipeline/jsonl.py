"""Rows as JSON lines, in ASCII: no line end of Unicode inside a text ends a line."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def read_jsonl(file: Path) -> list[Any]:
    """The rows of a file that `write_jsonl` wrote."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def write_jsonl(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One row a line."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
