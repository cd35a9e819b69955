"""What a training run leaves beside its checkpoints for workers on other nodes: on a disk nothing, under a URI the rows."""

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from raw2s.config import TrainingConfig
from raw2s.methods.cross_entropy import CrossEntropySection
from raw2s.storage.files import files_in, filesystem, remove, write
from raw2s.training import fit
from raw2s.training.fit import _drop_if_broken, _on_this_node, _place_of, _seen_by_workers
from raw2s.training.job import Job
from raw2s.training.progress import EXPORTED, Progress, read_progress, write_progress

FOLDERS = iter(range(10**6))


@pytest.fixture(params=["disk", "objects"])
def parts(request, tmp_path):
    root = tmp_path if request.param == "disk" else request.getfixturevalue("bucket")
    return root / f"parts-{next(FOLDERS)}"


def job(folder: Path) -> Job:
    for name in ("train", "validation"):
        (folder / f"{name}.jsonl").write_text(f"{name}\n")
    return Job(
        name="teacher/gpt2", model="tiny-gpt2", task="slurp_slots", form="text", classes=(), rows="text",
        train_file=str(folder / "train.jsonl"), validation_file=str(folder / "validation.jsonl"),
        training=TrainingConfig(), loss=CrossEntropySection(), seed=1,
    )  # fmt: skip


def test_workers_read_the_drivers_rows(parts, tmp_path):
    sent = _seen_by_workers(job(tmp_path), parts)
    (tmp_path / "train.jsonl").rename(tmp_path / "hidden") if not isinstance(parts, Path) else None
    (tmp_path / "worker").mkdir()
    read = _on_this_node(sent, tmp_path / "worker")
    assert Path(read.train_file).read_text() == "train\n"
    assert Path(read.validation_file).read_text() == "validation\n"
    assert read.model == "tiny-gpt2"
    if isinstance(parts, Path):
        assert sent == read == job(tmp_path)


def test_a_torn_list_of_checkpoints_begins_the_run_anew(parts):
    write(parts / "checkpoint_manager_snapshot.json", b"{}")
    write(parts / "checkpoint_1" / "progress.json", b"{")
    _drop_if_broken(parts)
    assert len(files_in(parts)) == 2
    write(parts / "checkpoint_manager_snapshot.json", b'{"a": ')
    _drop_if_broken(parts)
    assert files_in(parts) == {}
    _drop_if_broken(parts)


@pytest.mark.parametrize("gone", ["", "checkpoint_1", "checkpoint_1/progress.json", "checkpoint_1/model", "checkpoint_2"])
def test_a_list_of_what_is_gone_begins_the_run_anew(parts, gone):
    """A deletion was cut off: Ray Train would refuse the list, or the driver find no model, for ever."""
    listed = [{"checkpoint_dir_name": f"checkpoint_{n}", "metrics": {EXPORTED: step}} for n, step in ((1, 3), (2, 0))]
    write(parts / "checkpoint_manager_snapshot.json", json.dumps({"checkpoint_results": listed}).encode())
    for name in ("checkpoint_1/progress.json", "checkpoint_1/model/config.json", "checkpoint_2/progress.json"):
        write(parts / name, b"{}")
    remove(parts / gone) if gone else None
    _drop_if_broken(parts)
    assert bool(files_in(parts)) == (not gone)


def test_a_driver_killed_before_its_artifact_is_published_finds_the_model_again(parts, tmp_path, monkeypatch):
    checkpoint = parts / "train" / "checkpoint_1"
    write_progress(tmp_path, Progress(step=3, history=[{"step": 3, "loss": 0.5}]))
    write(checkpoint / "progress.json", (tmp_path / "progress.json").read_bytes())
    write(checkpoint / "model" / "config.json", b"{}")
    write(checkpoint / "model" / "model.safetensors", b"weights")
    result = SimpleNamespace(
        checkpoint=SimpleNamespace(path=filesystem(checkpoint)[1]),
        metrics={"epoch": 1, EXPORTED: 3, "tokens_per_second": 1.0},
    )
    monkeypatch.setattr(fit, "_fitted", lambda *_: result)
    before = files_in(parts / "train")
    for out in (tmp_path / "killed", tmp_path / "again"):
        out.mkdir()
        last = job(tmp_path)
        last = replace(last, training=last.training.model_copy(update={"keep": "last"}))
        fit.fit(last, out, parts, board=None, warn=pytest.fail, places=lambda training: 1)
        assert (out / "model" / "model.safetensors").read_bytes() == b"weights"
        assert files_in(parts / "train") == before
    if isinstance(parts, Path):
        assert os.path.samefile(out / "model" / "model.safetensors", checkpoint / "model" / "model.safetensors"), (
            "no room is taken"
        )


def test_the_driver_reads_a_checkpoints_progress_where_it_lies(parts, tmp_path):
    class Checkpoint:
        """As Ray Train gives it: a path on the file system of the storage."""

        path = filesystem(parts / "train" / "checkpoint_1")[1]

    write_progress(tmp_path, Progress(step=7, best=0.5))
    write(parts / "train" / "checkpoint_1" / "progress.json", (tmp_path / "progress.json").read_bytes())
    lies = _place_of(Checkpoint(), parts)
    assert lies == parts / "train" / "checkpoint_1"
    assert read_progress(lies) == Progress(step=7, best=0.5)
    assert read_progress(None) == Progress()
