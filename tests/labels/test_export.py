"""The label table as a data set: the columns that TRL documents, read back by `datasets`; and docs/label_table.md held to the schemas."""

import json
import math
import re
from pathlib import Path

import pytest
from datasets import load_from_disk
from hypothesis import given
from hypothesis import strategies as st

from raw2s.labels.export import COLUMNS, Labels, export_rows, write_dataset
from raw2s.labels.table import CLASSIFICATION, GENERATION

PAGE = (Path(__file__).parents[2] / "docs" / "label_table.md").read_text(encoding="utf-8")
TEACHERS = ["gpt2", "opt", "ann"]


def candidate(i, number, text, rank, words):
    tokens = [None if own is None else len(own) for own in words]
    return {"id": i, "candidate": number, "text": text, "rank": rank, "tokens": tokens, "words": words}


TEXT = Labels(
    prompts={7: "wake me up\n", 3: "play jazz\n"},
    table=[
        candidate(7, 0, "{ }", [0, 1, -1], [[-1.0, -0.5], [-2.0, -1.0], None]),
        candidate(7, 1, "{ 9 }", [1, 0, 0], [[-0.5, -0.5, -2.0], [-0.5, -0.1, -0.3], None]),
        candidate(3, 0, "jazz", [0, 0, -1], [[-1.0, -1.0], [-1.0, -1.0], None]),
    ],
    teachers=TEACHERS,
    classes=[],
)
CLASSES = Labels(
    prompts={7: "wake me up\n", 3: "play jazz\n"},
    table=[
        {"id": 7, "logits": [[2.0, 0.0, 0.0], [-math.inf, 0.0, -math.inf], None]},
        {"id": 3, "logits": [[0.0, 0.0, 1.0], None, None]},
    ],
    teachers=TEACHERS,
    classes=["alarm", "calendar", "music"],
)


def test_text_is_every_teachers_best_text_with_its_share_of_the_prompt():
    rows = export_rows(TEXT, "text")
    said = [(row["id"], row["teacher"], row["prompt"], row["completion"]) for row in rows]
    assert said == [
        (7, "gpt2", "wake me up\n", "{ }"),
        (7, "opt", "wake me up\n", "{ 9 }"),
        (7, "ann", "wake me up\n", "{ 9 }"),
        (3, "gpt2", "play jazz\n", "jazz"),
        (3, "opt", "play jazz\n", "jazz"),
    ]
    assert [row["weight"] for row in rows] == [pytest.approx(1 / 3)] * 3 + [1 / 2] * 2
    assert [row["logprob"] for row in rows] == [-1.5, pytest.approx(-0.9), None, -2.0, -2.0]


def test_classes_are_every_teachers_most_probable_class():
    rows = export_rows(CLASSES, "text")
    assert [(row["teacher"], row["completion"]) for row in rows] == [("gpt2", "alarm"), ("opt", "calendar"), ("gpt2", "music")]
    assert rows[0]["logprob"] == pytest.approx(math.log(math.exp(2) / (math.exp(2) + 2)))
    assert rows[1]["logprob"] == 0.0
    assert [row["weight"] for row in rows] == [1 / 2, 1 / 2, 1.0]


def test_pairs_are_the_best_and_the_worst_by_the_mean_score_of_those_who_score():
    (pair,) = export_rows(TEXT, "preference")  # one candidate alone is no pair
    assert (pair["id"], pair["prompt"], pair["chosen"], pair["rejected"]) == (7, "wake me up\n", "{ 9 }", "{ }")
    assert pair["score_chosen"] == pytest.approx((-3.0 / 3 - 0.9 / 3) / 2)
    assert pair["score_rejected"] == pytest.approx((-1.5 / 2 - 3.0 / 2) / 2)
    with pytest.raises(ValueError, match="classes give no pairs; export --format text"):
        export_rows(CLASSES, "preference")


def test_nobody_who_scores_gives_no_pair(tmp_path):
    unscored = Labels(
        prompts={7: "x"},
        table=[candidate(7, n, text, [n], [None]) for n, text in enumerate("ab")],
        teachers=["ann"],
        classes=[],
    )
    assert export_rows(unscored, "preference") == []
    with pytest.raises(ValueError, match="no row of format preference"):
        write_dataset(unscored, "preference", tmp_path / "out")


logits = st.one_of(st.none(), st.lists(st.floats(-30, 30), min_size=3, max_size=3))


@given(st.lists(st.lists(logits, min_size=3, max_size=3), min_size=1, max_size=6))
def test_a_prompts_weights_sum_to_one_and_every_label_is_there_once(table):
    rows = [{"id": i, "logits": own} for i, own in enumerate(table)]
    labels = Labels(prompts=dict.fromkeys(range(len(rows)), "x"), table=rows, teachers=TEACHERS, classes=CLASSES.classes)
    exported = export_rows(labels, "text")
    given_labels = [(i, TEACHERS[t]) for i, own in enumerate(table) for t, logit in enumerate(own) if logit is not None]
    assert [(row["id"], row["teacher"]) for row in exported] == given_labels
    for i in {row["id"] for row in exported}:
        assert sum(row["weight"] for row in exported if row["id"] == i) == pytest.approx(1)


@pytest.mark.parametrize("form", COLUMNS)
def test_datasets_reads_it_in_the_columns_that_trl_documents(tmp_path, form):
    out = tmp_path / "out"
    rows = export_rows(TEXT, form)
    assert write_dataset(TEXT, form, out) == len(rows)
    read = load_from_disk(str(out))
    assert read.to_list() == rows
    assert [json.loads(line) for line in (out / "labels.jsonl").read_text().splitlines()] == rows
    trl = {"text": {"prompt", "completion"}, "messages": {"messages"}, "preference": {"prompt", "chosen", "rejected"}}
    assert trl[form] < set(read.column_names)
    if form == "messages":
        first = [{"role": "user", "content": "wake me up"}, {"role": "assistant", "content": "{ }"}]
        assert read[0]["messages"] == first


def test_what_is_there_is_not_written_over(tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ValueError, match="is there already; give another folder with --to"):
        write_dataset(TEXT, "text", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def page_rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading of the page, without its two first lines."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in lines[2:]]


@pytest.mark.parametrize(("heading", "schema"), [("Text", GENERATION), ("Classes", CLASSIFICATION)])
def test_the_page_tells_every_column_of_the_label_table(heading, schema):
    told = [(name.strip("` "), kind) for name, kind, *_ in page_rows(heading)]
    assert told == [(field.name, re.sub(r"(element|item): ", "", str(field.type))) for field in schema]


def test_the_page_tells_every_column_of_the_exported_data_sets():
    told = [(form, name.strip("` "), kind) for form, name, kind, _ in page_rows("As a data set for other trainers")]
    turns = "list of role and content"
    columns = [
        (form, name, kind if isinstance(kind, str) else turns) for form, own in COLUMNS.items() for name, kind in own.items()
    ]
    assert sorted(told) == sorted(columns)
