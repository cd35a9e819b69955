"""What `raw2s store` says, checks and deletes: on a disk and under a URI."""

import time
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from tiny_runs import tiny_run

from raw2s import keeping
from raw2s.cli import main
from raw2s.config import parse_config
from raw2s.pipeline.plan import plan_stages
from raw2s.pipeline.remote_store import open_store
from raw2s.status import Process, RunStatus, StageStatus
from raw2s.storage import ARTIFACTS, Place
from raw2s.storage.files import files_in, read, write
from raw2s.storage.manifest import MANIFEST

FOLDERS = iter(range(10**6))
LATER = timedelta(days=2)
OLD, OTHER = "0" * 16, "1" * 16


def filled(folder):
    (folder / "file").write_text("content")
    return {"metrics": {}}


@pytest.fixture(params=["disk", "objects"])
def storage(request, tmp_path) -> Place:
    """A run that was cut off after its split, one that has finished, an artifact that neither names, and two things half-written."""
    root = tmp_path if request.param == "disk" else request.getfixturevalue("bucket")
    root = root / f"kept-{next(FOLDERS)}"
    store = open_store(root / ARTIFACTS)
    config = parse_config(tiny_run(root))
    split = plan_stages(config, 1).label.split
    store.create(split.kind, split.key, {}, filled)
    write(root / "cut" / "config.yaml", yaml.safe_dump(config.model_dump(mode="json")).encode())
    write(root / "mlartifacts" / "raw2s" / "config.yaml", read(root / "cut" / "config.yaml"))  # MLflow's copy is no run
    write(root / "wandb" / "run-1" / "files" / "config.yaml", b"wandb_version: 1")  # nor is what Weights & Biases writes
    store.create("train", OLD, {}, filled)
    write(root / "done" / "results.json", f'{{"stages": [{{"key": "{OLD}"}}]}}'.encode())
    store.create("train", OTHER, {}, filled)
    write(root / ARTIFACTS / "train" / "2222222222222222" / "attempt" / "half", b"written")
    write(root / ARTIFACTS / "train" / f".{OTHER}.parts" / "unit", b"left")
    return root


def later(monkeypatch):
    monkeypatch.setattr(keeping, "now", lambda: datetime.now(UTC) + LATER)


def test_what_no_run_names_is_listed_and_only_then_deleted(storage, monkeypatch, capsys):
    later(monkeypatch)
    before = files_in(storage)
    assert main(["store", str(storage)]) == 0
    out = capsys.readouterr().out
    assert files_in(storage) == before
    unused = [line.split()[1] for line in out.splitlines() if line.startswith("unused")]
    assert [name.rpartition("/artifacts/train/")[2].partition("/")[0] for name in sorted(unused)] == [
        f".{OTHER}.parts", OTHER, "2222222222222222",
    ]  # fmt: skip
    size = sum(bytes for name, bytes in before.items() if any(part in name for part in (OTHER, "2222")))
    assert f"3 of 5, {size:,} bytes, used by no run" in out
    assert "run cut uses 1, " in out
    assert "run done uses 1, " in out
    assert "run mlartifacts" not in out and "run wandb" not in out
    assert main(["store", str(storage), "--delete"]) == 0
    left = files_in(storage)
    assert left == {name: bytes for name, bytes in before.items() if not any(part in name for part in (OTHER, "2222"))}
    assert main(["store", str(storage), "--delete"]) == 0
    assert files_in(storage) == left


def test_a_second_makers_parts_go_though_its_artifact_is_used(storage, monkeypatch):
    later(monkeypatch)
    left = storage / ARTIFACTS / "train" / f".{OLD}.parts-0123" / "unit"
    write(left, b"left by one that was killed")
    write(storage / ARTIFACTS / "train" / f".{OLD}.parts" / "unit", b"gone on with")
    assert main(["store", str(storage), "--delete"]) == 0
    assert read(left) is None
    assert read(storage / ARTIFACTS / "train" / f".{OLD}.parts" / "unit") is not None


def test_what_is_young_stays(storage, capsys):
    before = files_in(storage)
    assert main(["store", str(storage), "--delete"]) == 0
    assert files_in(storage) == before
    assert "0 of 5, 0 bytes, deleted" in capsys.readouterr().out


def status_of(run, outcome, key):
    stages = [StageStatus(name="teacher", key=key, folder=f"artifacts/train/{key}")]
    now = time.time()
    RunStatus(
        run="done", outcome=outcome, process=Process.own(), started=now, updated=now, command="", tracked={}, stages=stages
    ).write(run)


def test_a_run_that_goes_on_uses_more_than_its_old_results(storage, monkeypatch, capsys):
    """Its config was written anew, and from this folder it cannot be planned."""
    later(monkeypatch)
    status_of(storage / "done", "running", OTHER)
    write(storage / "done" / "config.yaml", b"task: {name: own, train: not/here.jsonl}")
    before = files_in(storage)
    assert main(["store", str(storage), "--delete"]) == 2
    assert "done/config.yaml: what this run uses cannot be told" in capsys.readouterr().err
    assert files_in(storage) == before
    status_of(storage / "done", "done", OTHER)
    assert main(["store", str(storage), "--delete"]) == 0
    assert {f"artifacts/train/{key}/manifest.json" for key in (OLD, OTHER)} <= files_in(storage).keys()


def test_a_run_may_have_a_trackers_name(storage):
    write(storage / "mlartifacts" / "results.json", f'{{"stages": [{{"key": "{OTHER}"}}]}}'.encode())
    assert OTHER in keeping.named_keys(storage)["mlartifacts"]


def test_what_a_run_names_while_sums_are_checked_stays(storage, monkeypatch):
    later(monkeypatch)

    def begins(artifact):
        write(storage / "begun" / "results.json", f'{{"stages": [{{"key": "{OTHER}"}}]}}'.encode())

    monkeypatch.setattr(keeping, "problem_of", begins)
    assert main(["store", str(storage), "--verify", "--delete"]) == 0
    assert f"artifacts/train/{OTHER}/manifest.json" in files_in(storage)


def test_every_sum_is_checked(storage, capsys):
    assert main(["store", str(storage), "--verify"]) == 0
    assert "verified 3 artifacts, 0 of them damaged" in capsys.readouterr().out
    file = next(name for name in files_in(storage) if f"{OLD}/" in name and name.endswith("/file"))
    write(storage / file, b"CONTENT")
    assert main(["store", str(storage), "--verify"]) == 0
    out = capsys.readouterr().out
    assert "verified 3 artifacts, 1 of them damaged" in out
    assert f"train/{OLD}: file has changed since it was written" in out


def test_what_is_being_written_stays(tmp_path, monkeypatch):
    later(monkeypatch)
    store = open_store(tmp_path / ARTIFACTS)

    def fill(folder):
        (folder / "half").write_text("written")
        with store.parts("train", OTHER) as parts:
            write(parts / "unit", b"done")
            assert main(["store", str(tmp_path), "--delete"]) == 0
            assert read(parts / "unit") == b"done"
        assert (folder / "half").is_file()
        return {"metrics": {}}

    folder = store.create("train", OTHER, {}, fill).folder
    assert (folder / MANIFEST).is_file()


def test_a_deletion_that_is_cut_off_leaves_no_half_artifact_to_be_found(storage, monkeypatch):
    later(monkeypatch)
    removed, calls = keeping.remove, []

    def dies_after_one(there):
        calls.append(there)
        if len(calls) > 1:
            raise KeyboardInterrupt
        removed(there)

    monkeypatch.setattr(keeping, "remove", dies_after_one)
    artifact = next(e for e in keeping.entries_of(storage) if e.key == OTHER and e.what == "artifact")
    with pytest.raises(KeyboardInterrupt):
        keeping.delete([artifact])
    assert read(artifact.lies / "manifest.json") is None
    assert [e.what for e in keeping.entries_of(storage) if e.lies == artifact.lies or str(artifact.lies) in str(e.lies)] == [
        "half-written"
    ]
