"""`raw2s export-items`: B before a run, in the form of a label file; filled in, it is one."""

import csv
import json

import pytest
import yaml
from own_mails import own_mails, write_jsonl

from raw2s.cli import main
from raw2s.config import load_config
from raw2s.labels.label_files import read_label_file
from raw2s.tasks import draw_halves


@pytest.fixture
def config(tmp_path):
    sections = own_mails(tmp_path)
    (tmp_path / "people.jsonl").unlink()  # nobody has labeled yet
    tree = sections | {"student": {"model": "tiny-llama"}, "seeds": [1, 2]}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_the_items_are_b_of_every_seed_and_filled_in_they_are_a_label_file(config, tmp_path, suffix, capsys):
    file = tmp_path / f"items{suffix}"
    assert main(["export-items", str(config), str(file), "--set", "task.split_seed=null"]) == 0
    task = load_config(config, ["task.split_seed=null"]).task
    drawn = [draw_halves(task, seed).student for seed in (1, 2)]
    prompts = {example["id"]: example["prompt"].strip() for examples in drawn for example in examples}
    assert len(prompts) > len(drawn[0])
    assert f"{len(prompts)} of B; fill in column label" in capsys.readouterr().out
    if suffix == ".csv":
        with file.open(newline="") as stream:
            rows = [row | {"id": int(row["id"])} for row in csv.DictReader(stream)]
    else:
        rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert {row["id"]: row["prompt"] for row in rows} == prompts
    assert all(list(row) == ["id", "label", "prompt"] and not row["label"] for row in rows), "no truth is shown"
    assert read_label_file(file, ["billing", "sales"]) == []
    write_jsonl(tmp_path / "filled.jsonl", [row | {"label": "sales"} for row in rows])
    filled = read_label_file(tmp_path / "filled.jsonl", ["billing", "sales"])
    assert [(a.id, a.probabilities) for a in filled] == [(row["id"], (0.0, 1.0)) for row in rows]


def test_texts_have_a_column_text(config, tmp_path):
    file = tmp_path / "items.csv"
    task = "task={name: slurp_slots, n_student: 20}"
    assert main(["export-items", str(config), str(file), "--set", task, "--set", "seeds=[1]"]) == 0
    assert file.read_text().splitlines()[0] == "id,text,prompt"
    assert len(read_label_file(file, [])) == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("config.yaml", "is there already; give a new file"),
        ("items.parquet", "its name ends in none of .jsonl, .csv, which label files do; rename it"),
        ("no/items.csv", "no such folder; make it"),
    ],
)
def test_a_mistake_is_one_line_and_no_file(config, tmp_path, capsys, name, expected):
    before = config.read_bytes()
    assert main(["export-items", str(config), str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("raw2s export-items: ")
    assert expected in error
    assert error.count("\n") == 1
    assert config.read_bytes() == before
    assert not (tmp_path / name).exists() or name == "config.yaml"
