"""All commands over a run whose storage is a bucket: its stages made here with faked models, then found, so no Ray starts."""

import json

import faked_runs
import pytest
import yaml
from cluster_page import page_command
from faked_runs import fake_models, run_here
from tiny_runs import tiny_run

from raw2s.cli import main
from raw2s.pipeline.remote_store import RemoteStore
from raw2s.results import Results
from raw2s.status import RunStatus
from raw2s.storage import ARTIFACTS
from raw2s.storage.copies import gathered
from raw2s.storage.files import files_in, read, write

SECTIONS = {
    "task": {"name": "slurp_scenario", "n_teacher": 48, "n_student": 24, "n_validation": 16, "n_test": 24},
    "methods": [{"method": "bayesian"}],
}


def untrained(job, out, parts, **_):
    """Stands for a training run: a curve of one point and no model."""
    (out / "history.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    return {"final_loss": 2.0, "epoch_kept": 1}


@pytest.fixture
def storage(bucket, tmp_path, monkeypatch):
    """Of every stage the artifact, in the bucket; what the same stages leave in a folder is the same to the last bit."""
    fake_models(monkeypatch)
    monkeypatch.setattr("raw2s.training.fit.fit", untrained)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    where = bucket / tmp_path.name
    _, _, on_disk = run_here(tmp_path, **SECTIONS)
    monkeypatch.setattr(faked_runs, "ArtifactStore", lambda root: RemoteStore(where / ARTIFACTS))
    _, _, sent = run_here(tmp_path, **SECTIONS)
    assert {name: own.manifest["files"] for name, own in sent.items()} == {
        name: own.manifest["files"] for name, own in on_disk.items()
    }
    return where


def test_every_command_takes_a_uri(storage, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RAW2S_CACHE", str(tmp_path / "another-node"))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tiny_run(storage, **SECTIONS)))
    own = {"configs/demo.yaml": str(tmp_path / "config.yaml"), "s3://bucket/runs": str(storage)}
    assert main(page_command("raw2s run", own)[1:]) == 0
    out = capsys.readouterr().out
    run = storage / "tiny"
    assert (
        f"a database cannot lie in {storage}; MLflow: mlflow ui --backend-store-uri sqlite:///{tmp_path / 'another-node'}" in out
    )
    assert f"report   {run / 'report.html'}\nresults  {run / 'results.json'}" in out
    assert f"raw2s export {run} student/0-bayesian FOLDER" in out
    assert files_in(run).keys() >= {"config.yaml", "results.json", "report.html", "figures/scores.svg"}
    assert yaml.safe_load(read(run / "config.yaml"))["storage"] == str(storage)
    assert all(stage.cached for stage in Results.read(gathered(run)).stages)

    assert main(["plan", str(tmp_path / "config.yaml")]) == 0
    assert "to do" not in capsys.readouterr().out
    assert main(["status", str(run)]) == 0
    assert "tiny: done" in " ".join(capsys.readouterr().out.split()), "the run wrote its status there"
    assert main(page_command("raw2s report", {"s3://bucket/runs/demo": str(run)})[1:]) == 0
    assert f"report   {run / 'report.html'}" in capsys.readouterr().out
    assert main(["labels", "export", str(run), "--to", str(tmp_path / "labels")]) == 0
    assert len((tmp_path / "labels" / "labels.jsonl").read_text().splitlines()) == 24 * 2  # a row a teacher
    label = next(stage.key for stage in Results.read(gathered(run)).stages if stage.name == "label")
    assert json.loads(read(storage / ARTIFACTS / "label" / label / "manifest.json"))["key"] == label
    assert main(["labels", "export", str(storage / ARTIFACTS / "label" / label), "--to", str(tmp_path / "same")]) == 0
    assert (tmp_path / "same" / "labels.jsonl").read_bytes() == (tmp_path / "labels" / "labels.jsonl").read_bytes()

    fetched = gathered(run)
    before = RunStatus.read(fetched)
    for place, told in ((fetched, b"old"), (run, b"new")):
        write(place / "check.json", told)
    assert main(["run", str(tmp_path / "config.yaml")]) == 0
    after = RunStatus.read(run)
    assert before is not None and after is not None and after.started > before.started, "not the one that was fetched before"
    assert read(run / "check.json") == b"new"
