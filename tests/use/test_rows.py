"""The rows of a file: the same whatever the chunks, none lost, each bad one with its problem."""

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raw2s.use.rows import InputRow, open_table

BOM = b"\xef\xbb\xbf"
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=8)


def rows_of(file: Path, size: int, columns: list[str]) -> list[InputRow]:
    table = open_table(file, columns)
    chunks = list(table.chunks(size))
    assert all(1 <= len(table.rows(chunk)) <= size for chunk in chunks)
    return [row for chunk in chunks for row in table.rows(chunk)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.fixed_dictionaries({"a": TEXT, "b": TEXT}), max_size=7), size=st.integers(1, 4), bom=st.booleans())
def test_csv_and_json_lines_give_back_what_was_written(tmp_path, rows, size, bom):
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, ["a", "b"])
    writer.writeheader()
    writer.writerows(rows)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    for name, text in (("rows.csv", stream.getvalue()), ("rows.jsonl", lines)):
        (tmp_path / name).write_bytes(BOM * bom + text.encode())
        found = rows_of(tmp_path / name, size, ["a"])
        assert [row.number for row in found] == list(range(1, len(rows) + 1))
        assert [row.values for row in found] == rows
        assert not any(row.problem for row in found)


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_of_texts_every_line_is_a_row(tmp_path, size):
    (tmp_path / "rows.txt").write_bytes(b"one\r\n\ntwo, three\nhalf \xff\nlast")
    found = rows_of(tmp_path / "rows.txt", size, ["body"])
    assert [row.values.get("body") for row in found] == ["one", "", "two, three", None, "last"]
    assert [bool(row.problem) for row in found] == [False, False, False, True, False]


@pytest.mark.parametrize("size", [1, 3])
def test_a_bad_row_says_what_and_what_to_do_and_the_next_are_read(tmp_path, size):
    (tmp_path / "rows.jsonl").write_bytes(b'{"a": 1}\n\n{"a": \n[1]\n{"a": "\xff"}\n{"a": "\\ud800"}\n{"a": 2}\n')
    found = rows_of(tmp_path / "rows.jsonl", size, ["a"])
    assert [row.values.get("a") for row in found] == [1, None, None, None, None, 2]
    for row, problem in zip(found[1:5], ["not JSON", "a list and no JSON object", "not UTF-8", "half a character"], strict=True):
        assert problem in row.problem
        assert "; " in row.problem
    (tmp_path / "rows.csv").write_text('a,b\n1,2,3\n"x"y,2\n3\n"two\nlines",4\n')
    found = rows_of(tmp_path / "rows.csv", size, ["a"])
    assert [row.values for row in found] == [{}, {}, {"a": "3"}, {"a": "two\nlines", "b": "4"}]
    assert "more values than columns" in found[0].problem
    assert "not CSV" in found[1].problem


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rows.xlsx", "", "its name ends in none of .jsonl, .csv, .txt; convert it"),
        ("rows.csv", "", "has no header line with the columns' names; write it first"),
        ("rows.txt", "a", "the prompt has columns a, b, and a text has one; give .jsonl or .csv"),
        ("none.jsonl", None, "cannot be read (No such file or directory); correct the path"),
    ],
)
def test_a_file_that_cannot_be_rows_is_refused(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError) as refused:
        open_table(tmp_path / name, ["a", "b"])
    assert str(refused.value) == f"{tmp_path / name}: {message}"
