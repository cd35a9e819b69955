"""What the command line says without running anything, and the label table through it, with the models' answers fixed."""

import json
from pathlib import Path

import pytest
from datasets import load_from_disk
from faked_runs import fake_models, run_here
from tiny_runs import ROOT, tiny_run, write_config

from raw2s import __version__
from raw2s.arguments import SECTIONS
from raw2s.cli import main
from raw2s.config import RunConfig, load_config
from raw2s.methods import LOSSES, METHODS, PREFERENCE_LOSSES
from raw2s.pipeline.execute import Done, build
from raw2s.pipeline.stage import Work
from raw2s.tasks import TASKS
from raw2s.teachers import TEACHERS

LISTS = {"tasks": TASKS, "methods": METHODS, "losses": LOSSES | PREFERENCE_LOSSES, "teachers": TEACHERS}


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"raw2s {__version__}\n"


def test_the_help_names_every_command_in_its_section(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    for title, commands in SECTIONS.items():
        section = said.partition(f"\n{title}:\n")[2].partition("\n\n")[0]
        assert [line.split()[0] for line in section.splitlines()] == list(commands)
    for command in (name for own in SECTIONS.values() for name in own):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert capsys.readouterr().out.startswith(f"usage: raw2s {command} [-h]")


def test_the_keys_of_a_config_are_listed_section_by_section(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    sections = capsys.readouterr().out.partition("keys of a config, with their defaults:\n\n")[2].split("\n\n")
    titles = [section.partition(":")[0] for section in sections]
    assert titles == ["the run", *(key for key in RunConfig.model_fields if key not in ("name", "storage", "seeds", "tracking"))]
    for title, section in zip(titles[1:], sections[1:], strict=True):
        assert all(line.startswith(f"  {title}") for line in section.splitlines()[1:])


def test_the_demo_is_the_config_that_the_checkout_has(monkeypatch):
    ran = []
    monkeypatch.setattr("raw2s.cli.run_command", ran.append)
    assert main(["demo", "--set", "name=mine"]) == 0
    assert ran == [load_config(ROOT / "configs" / "demo.yaml", ["name=mine"])]
    assert ran[0].storage == Path("runs")


@pytest.mark.parametrize(("command", "known"), LISTS.items())
def test_what_varies_is_listed_with_what_it_is(capsys, command, known):
    assert main([command]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(known)
    assert all(len(line.split()) > 4 for line in lines)
    assert len({line.partition(" ")[2] for line in lines}) == len(lines), "two with one line"


def test_the_list_says_what_the_file_says(capsys):
    main(["methods"])
    assert "naive            Naive multi-weak: cross entropy against all teachers' labels" in capsys.readouterr().out


@pytest.fixture(scope="module")
def labeled(tmp_path_factory) -> tuple[Path, Path]:
    """(the run's folder, the folder of its label table)."""
    folder = tmp_path_factory.mktemp("labeled")
    with pytest.MonkeyPatch.context() as patch:
        fake_models(patch)
        results, _, artifacts = run_here(folder, methods=[])
    run = folder / "runs" / "tiny"
    run.mkdir()
    results.write(run)
    return run, artifacts["label"].folder


@pytest.mark.parametrize("which", [0, 1], ids=["of a run", "of a label artifact"])
def test_a_label_table_becomes_a_data_set(labeled, tmp_path, capsys, which):
    out = tmp_path / "made"
    assert main(["labels", "export", str(labeled[which]), "--to", str(out), "--format", "preference"]) == 0
    assert str(out) in capsys.readouterr().out
    read = load_from_disk(str(out))
    split = next(labeled[0].parent.glob("artifacts/split/*/student.jsonl"))
    prompts = {row["id"]: row["prompt"] for row in map(json.loads, split.read_text().splitlines())}
    assert {row["id"]: row["prompt"] for row in read} == prompts
    assert set(read["chosen"]) == {"{}"}


def test_by_default_it_is_text_in_the_folder_of_the_caller(labeled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["labels", "export", str(labeled[1])]) == 0
    assert "completion" in load_from_disk("labels-text").column_names
    assert main(["labels", "export", str(labeled[1])]) == 2  # it is there already


def test_a_folder_without_a_label_table_is_refused(tmp_path, capsys):
    assert main(["labels", "export", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"raw2s labels: {tmp_path}: neither a label table nor a finished run; ")
    assert error.count("\n") == 1


def test_classes_give_no_pairs(tmp_path, capsys, monkeypatch):
    fake_models(monkeypatch)
    task = {"name": "slurp_scenario", "n_teacher": 48, "n_student": 24, "n_validation": 16, "n_test": 24}
    _, _, artifacts = run_here(tmp_path, task=task, methods=[])
    folder = artifacts["label"].folder
    assert main(["labels", "export", str(folder), "--format", "preference"]) == 2
    assert "classes give no pairs" in capsys.readouterr().err
    assert main(["labels", "export", str(folder), "--to", str(tmp_path / "made")]) == 0
    assert len(load_from_disk(str(tmp_path / "made"))) == 2 * 24


def test_label_runs_up_to_the_label_table_and_says_where_it_lies(tmp_path, monkeypatch, capsys):
    def execute(stages, *, store, **_):
        done = {}
        for stage in stages:
            inputs = {needed.key: done[needed.name].artifact for needed in stage.inputs.values()}
            done[stage.name] = Done(build(stage, store, Work(inputs=inputs, out=tmp_path, parts=tmp_path)), cached=False)
        return done

    fake_models(monkeypatch)
    monkeypatch.setattr("raw2s.pipeline.execute.execute", execute)
    config = write_config(tmp_path, tiny_run(tmp_path / "runs", seeds=[1, 2]))
    assert main(["label", str(config)]) == 0
    tables = sorted((tmp_path / "runs" / "artifacts" / "label").glob("*/labels.parquet"))
    assert len(tables) == 2
    said = capsys.readouterr().out.splitlines()
    assert sorted(line for line in said if line.startswith("labels ")) == [f"labels   {table}" for table in tables]
    kinds = {folder.name for folder in (tmp_path / "runs" / "artifacts").iterdir()}
    assert kinds == {"split", "train", "answers", "label"}, "no student, no test"
