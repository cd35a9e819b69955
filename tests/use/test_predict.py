"""`raw2s predict`: every row goes out once, in order; abstention; and the rows to ask about."""

import csv
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from tiny_students import CLASSES, EDL

import raw2s
from raw2s.cli import main
from raw2s.labels.label_files import read_label_file
from raw2s.use import rows
from raw2s.use.rows import open_table
from raw2s.use.spread import ChunkActor, answer_spread

Make = Callable[..., Path]
GOOD = [
    {"number": 100 + i, "title": f"mail {i}", "body": f"the {word} please"} for i, word in enumerate(["invoice", "parcel"] * 6)
]
BAD = [
    "{",
    '{"title": "no body", "number": 1}',
    json.dumps({"title": "long", "body": "word " * 400, "number": 2}),
    '{"title": "", "body": true}',
]


@pytest.fixture
def mails(tmp_path: Path) -> Path:
    """Good rows with bad ones between them."""
    lines = [json.dumps(row) for row in GOOD]
    for place, bad in zip((0, 3, 5, 9), BAD, strict=True):
        lines.insert(place, bad)
    file = tmp_path / "mails.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return file


def predicted(folder: Path, mails: Path, *arguments: str) -> list[dict]:
    output = mails.with_name("answers.jsonl")
    assert main(["predict", str(folder), "--input", str(mails), "--output", str(output), *arguments]) == 0
    return [json.loads(line) for line in output.read_text().splitlines()]


@pytest.mark.parametrize("chunk", [3, 1000])
def test_every_row_goes_out_once_in_order_with_its_answer_or_its_problem(folder_of: Make, mails, capsys, monkeypatch, chunk):
    monkeypatch.setattr(rows.Table.chunks, "__defaults__", (chunk,))
    folder = folder_of(loss=EDL, id="number")
    found = predicted(folder, mails)
    assert [row["row"] for row in found] == list(range(1, len(GOOD) + len(BAD) + 1))
    assert [row["id"] for row in found if "error" not in row] == [row["number"] for row in GOOD]
    assert [row["row"] for row in found if "error" in row] == [1, 4, 6, 10]
    answers = raw2s.Student.load(folder).answer(GOOD)
    for row, answer in zip([row for row in found if "error" not in row], answers, strict=True):
        assert row["answer"] == answer.answer
        assert row["probabilities"] == pytest.approx(answer.probabilities, abs=1e-5)
        assert "abstain" not in row
    assert "16 rows, 4 of them without an answer (row 1: not JSON" in capsys.readouterr().out


def test_it_abstains_below_the_threshold_of_the_wished_accuracy(folder_of: Make, mails, capsys):
    folder = folder_of(id="number")
    middle = sorted(row["probability"] for row in predicted(folder, mails) if "error" not in row)[6]
    devel = {"probability": [1.0, middle, middle / 2], "right": [True, True, False]}
    capsys.readouterr()
    found = predicted(folder_of(id="number", devel=devel), mails, "--accuracy", "1")
    assert [row["abstain"] for row in found if "error" not in row] == [
        row["probability"] < middle for row in found if "error" not in row
    ]
    said = capsys.readouterr().out
    assert f"abstains 6 times, below a probability of {middle:.4f}: on devel 2 of the 2 answers above it are right [" in said


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_the_most_doubtful_are_a_label_file_to_fill_in(folder_of: Make, mails, suffix):
    ask = mails.with_name(f"ask.{suffix}")
    found = predicted(folder_of(loss=EDL, id="number"), mails, "--ask", "5", "--ask-file", str(ask))
    doubtful = sorted((row for row in found if "error" not in row), key=lambda row: row["probability"])[:5]
    assert read_label_file(ask, CLASSES) == []  # nobody has labeled them
    text = ask.read_text()
    asked = (
        list(csv.DictReader(text.splitlines(keepends=True)))
        if suffix == "csv"
        else [json.loads(line) for line in text.splitlines()]
    )
    assert [int(row["id"]) for row in asked] == [row["id"] for row in doubtful]
    assert all(row["prompt"].endswith("please\n") for row in asked)
    for row in asked:
        row["label"] = "support"
    ask.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    assert [a.id for a in read_label_file(ask.with_suffix(".jsonl"), CLASSES)] == [row["id"] for row in doubtful]


def test_rows_without_an_id_are_answered_and_not_asked_about(folder_of: Make, mails):
    ask = mails.with_name("ask.jsonl")
    found = predicted(folder_of(id="title"), mails, "--ask", "3")
    assert {row["id"] for row in found} == {None}
    assert ask.read_text() == ""
    predicted(folder_of(id=None), mails, "--ask", "3")  # the task numbers its rows from 0
    assert {json.loads(line)["id"] for line in ask.read_text().splitlines()} <= set(range(len(GOOD) + len(BAD))) - {0, 3, 5, 9}


def test_texts_a_line_each_and_answers_that_are_texts(folder_of: Make, tmp_path):
    (tmp_path / "rows.txt").write_text("wake me at nine\n\nplay some jazz\n")
    found = predicted(folder_of(form="text", loss=EDL, prompt="{text}\n"), tmp_path / "rows.txt", "--ask", "9")
    assert [row["id"] for row in found] == [0, 1, 2]
    assert "the prompt is empty" in found[1]["error"]
    assert all(0 < word["probability"] <= 1 for word in found[0]["words"])
    asked = [json.loads(line) for line in (tmp_path / "ask.jsonl").read_text().splitlines()]
    assert {row["id"] for row in asked} == {0, 2}
    assert read_label_file(tmp_path / "ask.jsonl", ()) == []


def test_an_actors_chunk_is_what_a_process_alone_writes(folder_of: Make, mails):
    folder = folder_of(loss=EDL, id="number")
    table = open_table(mails, ["title", "body"])
    actor = ChunkActor(str(folder), table)
    found = [row for chunk in table.chunks(5) for row in json.loads(actor(asdict(chunk))["answered"])]
    for row in found:
        row.pop("prompt", None)
    for one, other in zip(found, predicted(folder, mails), strict=True):
        assert one | {"probabilities": 0} == pytest.approx(other | {"probabilities": 0}, abs=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_ray_data_answers_the_rows_in_their_order(folder_of: Make, mails, local_ray, monkeypatch):
    monkeypatch.setattr(rows.Table.chunks, "__defaults__", (3,))
    folder = folder_of(loss=EDL, id="number")
    found = [row for chunk in answer_spread(str(folder), open_table(mails, ["title", "body"]), workers=2) for row in chunk]
    assert [row["row"] for row in found] == list(range(1, len(GOOD) + len(BAD) + 1))
    assert [row.get("answer") for row in found] == [row.get("answer") for row in predicted(folder, mails)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--accuracy", "2"], "an accuracy of 2 cannot be; wish for one above 0 and up to 1"),
        (["--ask", "0"], "0 rows to ask about are none; ask for 1 or more"),
        (
            ["--ask", "1", "--ask-file", "ask.txt"],
            "ask.txt: its name ends in none of .jsonl, .csv, which label files do; rename it",
        ),
        (
            ["--ask", "1", "--ask-file", "answers.jsonl"],
            "answers.jsonl would hold answers and rows to ask about; give another --ask-file",
        ),
        (["--workers", "0"], "--workers 0: nobody would answer; give 1 or more"),
        (["--output", "mails.jsonl"], "mails.jsonl is the input; give another file to write"),
        (["--output", "nowhere/answers.jsonl"], "nowhere/answers.jsonl: no folder nowhere; make it, or correct the path"),
        (["--input", "none.jsonl"], "none.jsonl: cannot be read (No such file or directory); correct the path"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_written(folder_of: Make, mails, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(mails.parent)
    before = mails.read_text()
    command = ["predict", str(folder_of()), "--input", "mails.jsonl", "--output", "answers.jsonl", *arguments]
    assert main(command) == 2
    assert capsys.readouterr().err == f"raw2s predict: {message}\n"
    assert [file.name for file in mails.parent.iterdir()] == ["mails.jsonl"]
    assert mails.read_text() == before
