"""What the teachers promise of an ensemble, on answers that are fixed, and the command around it."""

import io
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from faked_runs import answers_of, fake_models
from own_mails import mails, own_mails, write_jsonl
from rich.console import Console
from tiny_runs import tiny_run, write_config

from raw2s.cli import main
from raw2s.config import parse_config
from raw2s.labels.forms import FORMS
from raw2s.labels.table import write_table
from raw2s.outlook import Ensemble, Outlook
from raw2s.pipeline.check import outlook
from raw2s.pipeline.execute import Done, build
from raw2s.pipeline.plan import plan_stages
from raw2s.pipeline.stage import Work
from raw2s.report.outlook import advice, outlook_table

CLASSES = {"name": "slurp_scenario", "n_teacher": 48, "n_student": 24, "n_validation": 40, "n_test": 24}
THREE = [{"name": name, "model": f"tiny-{name}"} for name in ("gpt2", "opt", "gpt-neox")]


def outlook_of(folder, answer, **sections):
    """The outlook of teachers whose `answer(teacher, place, example, task)` are their row's columns."""
    config = parse_config(tiny_run(folder, **{"teachers": THREE, "methods": []} | sections))
    plan = plan_stages(config, 1)
    task = plan.label.task
    form, folders = FORMS[task.form], {plan.validation.name: folder / "validation"}
    (folder / "validation").mkdir(parents=True)
    plan.validation.run(Work(inputs={}, out=folder / "validation", parts=folder))
    parts = [(stage, plan.validation.drawn.parts["validation"]) for stage in plan.devel.values()]
    parts += [(stage, plan.label.split.drawn.parts["student"]) for stage in plan.label.answers.values()]
    for stage, examples in parts:
        own = folders[stage.name] = folder / stage.name.replace("/", "-")
        own.mkdir()
        rows = [
            {"id": example["id"], **answer(stage.name.partition("/")[2], place, example, task)}
            for place, example in enumerate(examples)
        ]
        write_table(own / "answers.parquet", rows, form.schema)
    return outlook(config, plan, folders)


def test_three_that_err_apart_are_worth_more_together(tmp_path):
    """Each is wrong, and says the next class, on another fifth of the examples: the vote is always right."""
    turn = {"gpt2": 0, "opt": 1, "gpt-neox": 2}

    def answer(teacher, place, example, task):
        truth = task.classes.index(example["target"])
        said = (truth + (place % 5 == turn[teacher])) % len(task.classes)
        probabilities = np.where(np.arange(len(task.classes)) == said, 0.9, 0.1 / (len(task.classes) - 1))
        return {"logits": np.log(probabilities).tolist()}

    found = outlook_of(tmp_path, answer, task=CLASSES)
    assert [(t.name, t.score) for t in found.teachers] == [("gpt2", 0.8), ("opt", 0.8), ("gpt-neox", 0.8)]
    assert [t.ece for t in found.teachers] == pytest.approx([0.1] * 3)
    assert [(e.name, e.score, e.over_best) for e in (*found.ensembles, found.oracle)] == [
        (name, 1.0, pytest.approx(0.2)) for name in ("majority", "weighted mean", "best answer")
    ]
    assert [p.error_correlation for p in found.pairs] == pytest.approx([-0.25] * 3)  # (0 - 0.2 * 0.2) / (0.2 * 0.8)
    assert [p.same_on_b for p in found.pairs] == pytest.approx([14 / 24, 14 / 24, 14 / 24], abs=0.05)
    assert all(p.kappa_on_b < p.same_on_b for p in found.pairs)
    assert "an ensemble should help" in found.advice
    with_weight = outlook_of(tmp_path / "again", answer, task=CLASSES, weights={"loss": [1, 0, 0]})
    assert [e.over_best for e in with_weight.ensembles] == pytest.approx([0.2, 0.0])  # the mean is gpt2's alone


def test_texts_alike_promise_little_and_the_best_beam_is_the_oracles(tmp_path):
    """All say nothing first; the second beam of one of them is the truth."""

    def answer(teacher, place, example, task):
        sure = {"gpt2": not example["gold"], "opt": bool(example["gold"]), "gpt-neox": True}[teacher]
        return {
            "texts": ["{}", example["target"] if teacher == "opt" else "{ no json"],
            "logprobs": [0.0 if sure else -1e3, -1e3],
        }

    found = outlook_of(tmp_path, answer)
    assert {t.score for t in found.teachers} == {0.0}
    right, wrong, always = (t.ece for t in found.teachers)  # nothing is right where there is nothing to say
    assert (right, wrong) == (0, 1) and 0 < always < 1
    assert [(e.name, e.score) for e in found.ensembles] == [("majority", 0.0)]
    assert found.oracle.score == 1.0
    assert [p.error_correlation for p in found.pairs] == pytest.approx([1.0] * 3)
    assert {(p.same_on_b, p.kappa_on_b) for p in found.pairs} == {(1.0, None)}
    assert "expect little" in found.advice and "+1.000" in found.advice


def test_of_label_files_alone_it_says_how_often_they_agree(tmp_path):
    """Nothing is said of devel, which they do not answer; the second says billing of every fourth."""
    file = write_jsonl(tmp_path / "people.jsonl", [{"id": i, "label": row["team"]} for i, row in enumerate(mails(0, 56))])
    files = [{"name": name, "kind": "labels", "file": file} for name in ("ann", "bob")]

    def answer(teacher, place, example, task):
        said = "billing" if teacher == "bob" and place % 4 == 0 else example["target"]
        return {"logits": [0.0 if name == said else -9.0 for name in task.classes]}

    found = outlook_of(tmp_path, answer, task=own_mails(tmp_path)["task"], teachers=files)
    assert (found.teachers, found.best, found.ensembles, found.oracle) == ([], None, [], None)
    (pair,) = found.pairs
    assert pair.error_correlation is None
    assert 0.75 <= pair.same_on_b < 1 and pair.kappa_on_b < pair.same_on_b
    assert "how good they are is not known" in found.advice
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(outlook_table(found))
    text = console.export_text()
    assert "ann, bob" in text and "on devel " not in text and "errors" not in text and "best answer" not in text


@pytest.mark.parametrize(
    ("ci95", "says"),
    [((0.01, 0.03), "should help"), ((-0.01, 0.03), "expect little"), ((-0.03, -0.01), "draw the best one down")],
)
def test_the_advice_says_no_more_than_the_interval_allows(ci95, says):
    ensemble = Ensemble(name="majority", score=0.5, over_best=sum(ci95) / 2, ci95=ci95)
    assert says in advice([ensemble], ensemble, "opt", 3)
    assert "nothing to combine" in advice([ensemble], ensemble, "opt", 1)


@pytest.mark.parametrize("task", [CLASSES, None], ids=["classes", "text"])
def test_the_command_runs_up_to_the_answers_of_one_seed_and_writes_what_they_say(tmp_path, monkeypatch, capsys, task):
    def execute(stages, *, store, **_):
        done = {}
        for stage in stages:
            inputs = {needed.key: done[needed.name].artifact for needed in stage.inputs.values()}
            done[stage.name] = Done(build(stage, store, Work(inputs=inputs, out=tmp_path, parts=tmp_path)), cached=False)
        return done

    def answers_with_logprobs(pool, asked, prompts, **_):
        found = answers_of(pool, asked, prompts)
        scores = pa.array([[-0.1, -2.0]] * len(prompts))
        return found if asked.form == "classes" else replace(found, answers=found.answers.append_column("logprobs", scores))

    fake_models(monkeypatch)
    monkeypatch.setattr("raw2s.labeling.answers.answers_of", answers_with_logprobs)
    monkeypatch.setattr("raw2s.pipeline.execute.execute", execute)
    tree = tiny_run(tmp_path / "runs", seeds=[3, 4], **({"task": task, "methods": []} if task else {}))
    assert main(["check", str(write_config(tmp_path, tree))]) == 0
    found = Outlook.model_validate_json((tmp_path / "runs" / "tiny" / "check.json").read_text())
    assert found.seed == 3 and [t.name for t in found.teachers] == ["gpt2", "opt"]
    said = capsys.readouterr().out
    assert "2 teachers together" in " ".join(said.split())
    assert {folder.name for folder in (tmp_path / "runs" / "artifacts").iterdir()} == {"split", "train", "answers"}
    console = Console(width=80, record=True, file=None)
    with console.capture():
        console.print(outlook_table(found))
    assert "…" not in console.export_text()
