"""What a training run leaves beside its checkpoints for workers on other nodes: on a disk nothing, under a URI the rows."""

from pathlib import Path

import pytest

from raw2s.config import TrainingConfig
from raw2s.methods.cross_entropy import CrossEntropySection
from raw2s.storage.files import files_in, filesystem, write
from raw2s.training.fit import _drop_if_torn, _on_this_node, _place_of, _seen_by_workers
from raw2s.training.job import Job
from raw2s.training.progress import Progress, read_progress, write_progress

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
    _drop_if_torn(parts)
    assert len(files_in(parts)) == 2
    write(parts / "checkpoint_manager_snapshot.json", b'{"a": ')
    _drop_if_torn(parts)
    assert files_in(parts) == {}
    _drop_if_torn(parts)


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
