"""Temporary folders of workers: those of the killed are swept, those of the living are not, and none outlives an error."""

import os
import subprocess
import sys
import tempfile

import pytest
import torch.distributed as dist

from raw2s.training import checkpoints
from raw2s.training.scratch import scratch, sweep

WORKER = """
from raw2s.training.scratch import scratch
(scratch("checkpoint") / "shard").write_text("states")
print(scratch("rows"), flush=True)
input()
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_a_killed_worker_left_is_swept_and_what_a_living_one_has_is_not(temporary):
    own = scratch("checkpoint")
    command = [sys.executable, "-c", WORKER]
    with subprocess.Popen(
        command, env=os.environ | {"TMPDIR": str(temporary)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as worker:
        assert worker.stdout.readline().startswith(os.fsencode(temporary))
        sweep()
        assert sorted(path.name.split("-")[2] for path in temporary.iterdir()) == ["checkpoint", "checkpoint", "rows"]
        worker.kill()
        worker.wait(timeout=60)
        sweep()
    assert list(temporary.iterdir()) == [own]


def test_a_folder_that_was_moved_is_let_go(temporary):
    open_files = len(os.listdir("/proc/self/fd"))
    for number in range(5):
        scratch("checkpoint").rename(temporary / str(number))
    sweep()
    assert sorted(path.name for path in temporary.iterdir()) == list("01234")
    assert len(os.listdir("/proc/self/fd")) <= open_files + 2


@pytest.mark.parametrize("failing", ["conversion", "loading", None])
def test_a_universal_checkpoint_goes_after_an_error_too(temporary, monkeypatch, failing):
    barriers = []

    def convert(given):
        os.makedirs(given.output_folder)
        if failing == "conversion":
            raise OSError("No space left on device")

    def load(folder):
        assert (folder / checkpoints.ENGINE).is_dir()
        if failing == "loading":
            raise OSError("No space left on device")

    def gather(found, own):
        found[:] = [own]

    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr(checkpoints.ds_to_universal, "main", convert)
    monkeypatch.setattr(dist, "get_world_size", lambda: 1)
    monkeypatch.setattr(dist, "all_gather_object", gather)
    monkeypatch.setattr(dist, "barrier", lambda: barriers.append(True))
    try:
        with checkpoints.universal_checkpoint(temporary / "checkpoint") as folder:
            load(folder)
        assert failing is None
    except OSError:
        assert failing is not None
    assert list(temporary.iterdir()) == []
    assert bool(barriers) == (failing is None), "a rank that fails does not wait for the others"
