"""A checkpoint is loaded as its run wrote it, or not at all."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from plain_workers import case

from raw2s.training import fit
from raw2s.training.progress import EXPORTED, Progress, write_progress
from raw2s.training.sums import changed, write_sums

SHARDS = {0: ["weights.pt", "optimizer-0.pt"], 1: ["optimizer-1.pt"]}


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """Of two workers, as Ray Train merges what they report."""
    merged = tmp_path / "merged"
    (merged / "engine").mkdir(parents=True)
    for rank, names in SHARDS.items():
        own = tmp_path / f"rank-{rank}"
        (own / "engine").mkdir(parents=True)
        for name in names:
            (own / "engine" / name).write_text(f"{name} of rank {rank}")
        if rank == 0:
            write_progress(own, Progress(step=3))
        write_sums(own, rank=rank, workers=2)
        for file in own.rglob("*.*"):
            file.rename(merged / file.relative_to(own))
    (merged / "model").mkdir()
    (merged / "model" / "config.json").write_text("exported, moved to the artifact and summed up there")
    return merged


def test_as_written_it_is_loaded(checkpoint):
    assert changed(checkpoint) is None


@pytest.mark.parametrize("name", ["engine/weights.pt", "engine/optimizer-1.pt", "progress.json"])
def test_a_change_is_found_by_exactly_one_of_the_readers(checkpoint, name):
    file = checkpoint / name
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    found = [changed(checkpoint, part=part, parts=3) for part in range(3)]
    assert sorted(map(str, found)) == ["None", "None", f"{name} has changed since it was written"]


def test_so_are_files_too_many_and_too_few(checkpoint):
    extra = checkpoint / "engine" / "more_optim_states.pt"  # DeepSpeed's conversion reads whatever ends so
    extra.write_text("")
    assert changed(checkpoint) == "engine/more_optim_states.pt was not written by its run"
    extra.unlink()
    (checkpoint / "engine" / "weights.pt").unlink()
    assert changed(checkpoint) == "engine/weights.pt is missing"


def test_without_all_sums_nothing_is_loaded(checkpoint):
    sums = checkpoint / "sums-1-of-2.json"
    for text in ("[]", "{", ""):
        sums.write_text(text)
        assert changed(checkpoint) == "the sums cannot be read"
    sums.unlink()
    assert changed(checkpoint) == "the sums of some workers are missing"
    (checkpoint / "sums-0-of-2.json").unlink()
    assert changed(checkpoint) == "the sums of some workers are missing"


def test_training_begins_again_without_it(checkpoint, tmp_path, monkeypatch):
    """The driver's side; the workers' is in test_loop.py."""
    job = case(tmp_path / "out", tmp_path / "rows.jsonl").job
    parts, out, said = tmp_path / "parts", tmp_path / "out", []
    out.mkdir()
    attempts = []

    def trainer(*_):
        def run():
            attempts.append((parts / "train").exists())
            (parts / "train").mkdir(parents=True, exist_ok=True)
            if len(attempts) == 1:
                (parts / fit.CHANGED).write_text("in the checkpoint c, engine/weights.pt is missing")
            metrics = {"epoch": 1, EXPORTED: 3, "tokens_per_second": 1.0}
            write_progress(checkpoint, Progress(step=3, history=[{"step": 3, "loss": 0.5}]))
            return SimpleNamespace(checkpoint=SimpleNamespace(path=str(checkpoint)), metrics=metrics)

        return SimpleNamespace(fit=run)

    monkeypatch.setattr(fit, "_trainer", trainer)
    (parts / "train").mkdir(parents=True)
    metrics = fit.fit(job, out, parts, board=None, warn=said.append, places=lambda training: 1)
    assert attempts == [True, False], "once with what was there, once from the beginning"
    assert said == ["student/0-test: in the checkpoint c, engine/weights.pt is missing; it is not loaded, training begins again"]
    assert metrics["final_loss"] == 0.5 and json.loads((out / "history.jsonl").read_text())["step"] == 3
