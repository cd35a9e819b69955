"""`raw2s export`: a finished run's student becomes a folder that answers; training is replaced by an untrained model."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from faked_runs import fake_models, run_here
from tiny_runs import tiny_run

import raw2s
from raw2s.cli import main
from raw2s.config import parse_config
from raw2s.models.load import load_model, load_tokenizer

TASKS = {"classes": "slurp_scenario", "text": "slurp_slots"}


def untrained(job, out: Path, parts: Path, **_: object) -> dict[str, float]:
    """Stands for `fit`."""
    torch.manual_seed(0)
    load_model("tiny-gpt2", job.form, job.classes).save_pretrained(out / "model")
    load_tokenizer("tiny-gpt2").save_pretrained(out / "model")
    return {"final_loss": 0.0}


@pytest.fixture(scope="module", params=TASKS)
def run(request, tmp_path_factory) -> Path:
    """The folder of a finished run of two students: one evidential, one of cross entropy."""
    folder = tmp_path_factory.mktemp("finished")
    sections = {
        "task": {"name": TASKS[request.param], "n_teacher": 48, "n_student": 24, "n_validation": 16, "n_test": 24},
        "methods": [{"method": "bayesian"}, {"method": "naive"}],
        "labeling": {"max_new_tokens": 6},
    }
    with pytest.MonkeyPatch.context() as patch:
        fake_models(patch)
        patch.setattr("raw2s.training.fit.fit", untrained)
        results, _, _ = run_here(folder, **sections)
    made = folder / "runs" / "tiny"
    made.mkdir()
    results.write(made)
    config = parse_config(tiny_run(folder / "elsewhere", **sections))  # the storage may have moved since
    (made / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return made


def test_the_folder_answers_as_it_answered_devel(run, tmp_path, capsys):
    out = tmp_path / "student"
    assert main(["export", str(run), "student/0-bayesian", str(out)]) == 0
    assert f"raw2s predict {out} --input FILE" in capsys.readouterr().out
    student = raw2s.Student.load(out)
    sheet = student.sheet
    assert (sheet.student, sheet.prompt, sheet.id, sheet.loss["name"]) == ("student/0-bayesian", "{text}\n", "id", "edl")
    results = json.loads((run / "results.json").read_text())
    assert sheet.test.value == pytest.approx(results["students"][0]["score"])
    assert sheet.test.ci95 == pytest.approx(results["students"][0]["ci95"])
    devel = [json.loads(line) for line in next(run.parent.glob("artifacts/split/*/validation.jsonl")).read_text().splitlines()]
    again = student.answer([example["prompt"].removesuffix("\n") for example in devel])
    assert [answer.probability for answer in again] == pytest.approx(sheet.devel.probability, rel=1e-4)
    if sheet.form == "classes":
        assert [answer.answer == example["gold"] for answer, example in zip(again, devel, strict=True)] == sheet.devel.right
    card = (out / "README.md").read_text()
    assert "24 items labeled by the teachers" in card
    assert "16 examples of devel" in card


def test_a_student_of_cross_entropy_is_read_as_a_softmax(run, tmp_path):
    assert main(["export", str(run), "student/1-naive", str(tmp_path / "student")]) == 0
    assert raw2s.Student.load(tmp_path / "student").evidence is None


def test_mistakes_are_one_line_and_leave_nothing(run, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for arguments, message in (
        ([str(run), str(tmp_path / "new")], "has several students; name one of student/0-bayesian, student/1-naive"),
        (
            [str(run), "bayesian", str(tmp_path / "new")],
            "has no student 'bayesian'; name one of student/0-bayesian, student/1-naive",
        ),
        ([str(tmp_path), "student/0-bayesian", str(tmp_path / "new")], "no results.json here; give the folder of a finished run"),
        ([str(run), "student/0-bayesian", str(tmp_path / "full")], "is there already; give a new folder"),
    ):
        assert main(["export", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["full"]


def test_an_artifact_that_is_gone_is_named(run, tmp_path, capsys):
    kept = next(run.parent.glob("artifacts/student/*/model/config.json"))
    text = kept.read_text()
    kept.write_text("{}")
    try:
        errors = []
        for name in ("student/0-bayesian", "student/1-naive"):
            status = main(["export", str(run), name, str(tmp_path / "new")])
            errors += [capsys.readouterr().err] if status else []
            (tmp_path / "new").exists() and (tmp_path / "new").rename(tmp_path / "other")
    finally:
        kept.write_text(text)
    (error,) = errors
    assert "is not whole in" in error
    assert "model/config.json has changed since it was written" in error
    assert error.endswith("run the config again\n")
