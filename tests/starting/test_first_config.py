"""`raw2s init`: what it writes is a config that plans, for classes and for text, with label files and without; what it cannot tell it refuses."""

import csv
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from own_mails import TEAMS, mails, write_jsonl

from raw2s.cli import main
from raw2s.config import load_config
from raw2s.starting.columns import look_at_data
from raw2s.starting.label_columns import look_at_labels
from raw2s.starting.sizes import sizes_of
from raw2s.tasks import draw_halves, task_of
from raw2s.tasks.sources import SourceRow, read_source

CHANGED = (
    "seeds",
    "train",
    "prompt",
    "answer",
    "metric",
    "n_test",
    "n_teacher",
    "credit",
    "student",
    "student_training",
    "methods",
)
"""Keys that a user will change; a comment says how."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task_of.cache_clear()  # every test has other files under the same names
    return tmp_path


def write_csv(file, table):
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(table[0]))
        writer.writeheader()
        writer.writerows(table)


def made(capsys, *arguments):
    """The config that `raw2s init` wrote, and its text."""
    assert main(["init", *arguments]) == 0, capsys.readouterr().err
    out = Path("config.yaml")
    return load_config(out), out.read_text()


def refusal(capsys, *arguments):
    """The one line of a refusal."""
    assert main(["init", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("raw2s init: ")
    assert error.count("\n") == 1
    return error


def test_a_file_of_classes_gets_the_built_in_teachers(folder, capsys):
    write_jsonl(folder / "mails.jsonl", mails(0, 120))
    config, text = made(capsys, "mails.jsonl")
    assert (config.task.prompt, config.task.answer, config.task.form) == ("{title}\n{body}\n", "team", "classes")
    assert config.task.classes == tuple(sorted(TEAMS))
    assert [teacher.model for teacher in config.teachers] == ["tiny-gpt2", "tiny-opt", "tiny-gpt-neox"]
    assert len(config.methods) == 1
    lines = text.splitlines()
    for key in CHANGED:
        (line,) = [line for line in lines if line.lstrip().startswith(f"{key}:")]
        place = lines.index(line)
        assert "  # " in line or "#" in lines[place + 1], f"{key} has no comment"
    assert main(["plan", "config.yaml", "--memory", "80GiB"]) == 0
    assert "student/0-bayesian" in capsys.readouterr().out


def test_two_annotators_and_a_rule_label_what_has_no_answer(folder, capsys):
    table = mails(0, 100)
    write_csv(folder / "mails.csv", [row | ({} if i < 30 else {"team": ""}) for i, row in enumerate(table)])
    write_csv(folder / "ann.csv", [{"id": i, "label": row["team"]} for i, row in enumerate(table)][30:90])
    write_csv(folder / "bob.csv", [{"id": i, "label": row["team"]} for i, row in enumerate(table)][50:])
    write_jsonl(folder / "rule 1.jsonl", [{"id": i, "probabilities": {"billing": 0.9, "sales": 0.1}} for i in range(30, 60)])
    config, text = made(capsys, "mails.csv", "ann.csv", "bob.csv", "rule 1.jsonl")
    assert [(teacher.name, str(teacher.file)) for teacher in config.teachers] == [
        ("ann", "ann.csv"), ("bob", "bob.csv"), ("rule_1", "rule 1.jsonl"),
    ]  # fmt: skip
    assert {example["id"] for example in draw_halves(config.task, 1).student} == set(range(30, 100))
    assert "70 of them without an answer" in text
    assert main(["plan", "config.yaml", "--memory", "80GiB"]) == 0


@pytest.mark.parametrize("labels", [[], ["people.csv"]])
def test_a_file_of_texts(folder, capsys, labels):
    table = [{"id": 500 + i, "note": f"{i % 12} o'clock, call {i}", "summary": f"call {i}", "year": i} for i in range(100)]
    write_csv(folder / "notes.csv", table)
    people = [{"id": row["id"], "annotator": name, "text": row["summary"]} for row in table[:70] for name in ("ann", "bob")]
    write_csv(folder / "people.csv", people)
    config, text = made(capsys, "notes.csv", *labels)
    assert (config.task.form, config.task.answer, config.task.metric) == ("text", "summary", "exact_match")
    assert (config.task.prompt, config.task.id) == ("{note}\n", "id")
    assert "not read: year" in text
    assert (config.labeling.max_rejected_fraction > 0.3) == bool(labels), "3 of 10 rows have no label"


def test_answers_that_are_slots_are_scored_as_such(folder, capsys):
    write_jsonl(folder / "asked.jsonl", [{"text": f"wake me at {i}", "target": json.dumps({"time": str(i)})} for i in range(60)])
    assert made(capsys, "asked.jsonl")[0].task.metric == "slu_f1"


def test_nothing_is_overwritten(folder, capsys):
    write_jsonl(folder / "mails.jsonl", mails(0, 120))
    (folder / "config.yaml").write_text("mine")
    assert "config.yaml is there already; give another name with --out" in refusal(capsys, "mails.jsonl")
    assert (folder / "config.yaml").read_text() == "mine"
    assert main(["init", "mails.jsonl", "--out", "other.yaml"]) == 0


TWO = [{"text": f"mail number {i}", "team": "ab"[i % 2], "shop": "xy"[i % 2]} for i in range(80)]
REFUSED = {
    "two columns of classes": (TWO, None, "data.jsonl: the answer may be column team or shop; remove all but one, or name one of them"),
    "no answers": ([{"text": f"mail number {i}"} for i in range(80)], None, "no column of text holds the answers"),
    "no text": ([{"kind": "ab"[i % 2], "size": "xyzw"[i % 4], "label": "ab"[i % 2]} for i in range(80)], None, "2 words or more"),
    "too few rows": (mails(0, 20), None, "20 rows, 20 of them with an answer, are too few"),
    "no label file": (mails(0, 80), [{"id": 1, "lable": "sales"}], "labels.jsonl: a label file needs a column id and one column label"),
    "id of a label": (mails(0, 80), [{"id": "x", "label": "sales"}], "labels.jsonl: row 1: 'x' is no id"),
    "ids beyond": (mails(0, 80), [{"id": 80, "label": "sales"}], "a label file names id 80, and the data have rows 0 to 79"),
    "no number": (mails(0, 80), [{"id": i, "probabilities": {"sales": 2}} for i in range(80)], "the probabilities are not 4 numbers"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_worked_out_is_one_line_and_no_config(folder, capsys, name):
    data, labels, expected = REFUSED[name]
    write_jsonl(folder / "data.jsonl", data)
    if labels:
        write_jsonl(folder / "labels.jsonl", labels)
    assert expected in refusal(capsys, "data.jsonl", *(["labels.jsonl"] if labels else []))
    assert not (folder / "config.yaml").exists()


def test_a_class_that_only_a_label_file_holds_is_said(folder, capsys):
    write_jsonl(folder / "mails.jsonl", mails(0, 80))
    write_jsonl(
        folder / "ann.jsonl", [{"id": i, "label": "salse" if i == 7 else row["team"]} for i, row in enumerate(mails(0, 80))]
    )
    config, text = made(capsys, "mails.jsonl", "ann.jsonl")
    assert "salse" in config.task.classes
    assert "only in label files: salse" in text
    assert "only label files hold the classes salse" in capsys.readouterr().out


def test_texts_that_a_built_in_model_cannot_read_are_counted(folder, capsys):
    table = mails(0, 80)
    table[3]["body"] = "word " * 400
    write_jsonl(folder / "mails.jsonl", table)
    assert main(["init", "mails.jsonl"]) == 0
    assert "warning: 1 texts are too long for built-in models, which read 256 pieces" in capsys.readouterr().out


@given(answered=st.integers(40, 300), lacking=st.integers(0, 300), labeled=st.booleans())
def test_every_row_goes_somewhere_and_what_has_no_answer_into_b(tmp_path_factory, answered, lacking, labeled):
    table = [row | ({} if i < answered else {"team": None}) for i, row in enumerate(mails(0, answered + lacking))]
    rows = [SourceRow(f"row {i}", row) for i, row in enumerate(table)]
    file = tmp_path_factory.getbasetemp() / "labels.jsonl"
    write_jsonl(file, [{"id": i, "label": "sales"} for i in range(len(rows))])
    labels = [look_at_labels(file)] if labeled else []
    try:
        sizes = sizes_of(Path("data.jsonl"), look_at_data(Path("data.jsonl"), rows, labels), labels)
    except ValueError as error:
        assert "too few" in str(error)
        assert 0 < lacking < 16
        return
    parts = (sizes.teacher, sizes.student, sizes.validation, sizes.test)
    assert min(parts) >= 1
    assert sum(parts) == answered + lacking
    assert sizes.student >= lacking
    assert lacking == 0 or sizes.student == lacking
    assert sizes.unlabeled == 0


def test_the_written_yaml_survives_any_name_of_a_column(folder, capsys):
    write_jsonl(
        folder / "mails.jsonl", [{"tïtle: x#": row["title"], "body": row["body"], "label": row["team"]} for row in mails(0, 80)]
    )
    assert "has braces that hold no column's name alone" in refusal(capsys, "mails.jsonl")
    write_jsonl(folder / "mails.jsonl", [{"tïtle #1": row["title"], "label": row["team"]} for row in mails(0, 80)])
    config, text = made(capsys, "mails.jsonl")
    assert config.task.prompt == "{tïtle #1}\n" == yaml.safe_load(text)["task"]["prompt"]
    assert len(read_source("data", "mails.jsonl", "")) == 80
