"""The artifact store over a server that speaks S3."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_artifacts import fill

from raw2s.errors import ConfigError, StageFailed
from raw2s.pipeline import lease, remote_store
from raw2s.pipeline.lease import HOLDER
from raw2s.pipeline.preflight import check_storage
from raw2s.pipeline.remote_store import RemoteStore
from raw2s.storage import Uri, copies
from raw2s.storage.copies import ATTEMPT, here, local, original
from raw2s.storage.files import files_in, read, remove, write
from raw2s.storage.manifest import MANIFEST, damage

KEY = "0123456789abcdef"
FOLDERS = iter(range(10**6))


@pytest.fixture
def store(bucket):
    return RemoteStore(bucket / "runs" / str(next(FOLDERS)) / "artifacts")


def create(store, fill=fill):
    return store.create("train", KEY, {"inputs": {}}, fill)


def on_another_node(store):
    """The same store where nothing has been fetched yet."""
    shutil.rmtree(local(store.root), ignore_errors=True)
    return RemoteStore(store.root)


def manifest_of(store):
    return json.loads(read(store.root / "train" / KEY / MANIFEST))


def test_nothing_is_found_before_it_is_made(store):
    assert store.find("train", KEY, pytest.fail) is None
    assert list(store.finished("train")) == []


def test_what_was_created_is_found_on_every_node(store):
    made = create(store)
    assert store.find("train", KEY, pytest.fail) == made
    assert list(store.finished("train")) == [made]
    found = on_another_node(store).find("train", KEY, pytest.fail)
    assert found == made
    assert (found.folder / "model" / "weights.bin").read_bytes() == bytes(range(256))
    assert damage(found.folder) is None
    manifest = manifest_of(store)
    assert manifest == found.manifest
    assert manifest["sizes"] == {"history.jsonl": 14, "model/weights.bin": 256}
    assert files_in(store.root / "train" / KEY / manifest[ATTEMPT]) == manifest["sizes"]


def test_a_workers_node_fetches_what_a_path_of_the_drivers_names(store, monkeypatch, tmp_path):
    source = str(create(store).folder / "model")
    monkeypatch.setenv("RAW2S_CACHE", str(tmp_path))
    found = here(source)
    assert found.startswith(str(tmp_path))
    assert original(tmp_path / found) == original(copies.Path(source))
    assert (tmp_path / found / "weights.bin").read_bytes() == bytes(range(256))
    assert here("org/model") == "org/model"
    remove(store.root / "train" / KEY)
    with pytest.raises(StageFailed, match="is gone; run again"):
        here(source)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_fill_leaves_nothing(store, error):
    def breaks(folder):
        fill(folder)
        raise error

    with pytest.raises(error):
        create(store, breaks)
    assert files_in(store.root) == {}
    assert create(store).metrics == {"final_loss": 1.0}


KILLED = """
import os
from pathlib import Path
from raw2s.pipeline import remote_store
from raw2s.storage import place
def dies(file, content):
    os._exit(9)
remote_store.write = dies
def fill(folder):
    (folder / "half").write_text("done")
    return {{"metrics": {{}}}}
remote_store.RemoteStore(place({root!r})).create("train", {key!r}, {{}}, fill)
"""


def test_a_writer_killed_before_its_manifest_leaves_nothing_that_is_seen(store):
    script = KILLED.format(root=str(store.root), key=KEY)
    assert subprocess.run([sys.executable, "-c", script], timeout=120).returncode == 9
    (left,) = files_in(store.root)
    assert left.endswith("/half")
    elsewhere = on_another_node(store)
    assert elsewhere.find("train", KEY, pytest.fail) is None
    assert list(elsewhere.finished("train")) == []
    create(elsewhere)
    assert set(manifest_of(store)["files"]) == {"history.jsonl", "model/weights.bin"}


def test_what_was_made_here_and_not_sent_is_sent_and_not_made_again(store):
    made = create(store)
    remove(store.root / "train" / KEY)
    assert store.find("train", KEY, pytest.fail) is None
    again = create(store, lambda folder: pytest.fail("made again"))
    assert again.manifest["files"] == made.manifest["files"]
    assert on_another_node(store).find("train", KEY, pytest.fail) == again


DAMAGE = {
    "a flipped byte": (lambda lies: write(lies / "history.jsonl", b'{"loss": 2.0}\n'), "history.jsonl has changed"),
    "a cut object": (lambda lies: write(lies / "history.jsonl", b""), "history.jsonl has changed"),
    "a missing object": (lambda lies: remove(lies / "history.jsonl"), "history.jsonl is missing"),
    "a manifest cut short": (lambda lies: write(lies.parent / MANIFEST, b'{"files": {'), "its manifest is unreadable"),
    "another manifest": (lambda lies: write(lies.parent / MANIFEST, b"[]"), "its manifest is unreadable"),
}


@pytest.mark.parametrize(("harm", "problem"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_told_withdrawn_and_built_again(store, harm, problem):
    create(store)
    harm(store.root / "train" / KEY / manifest_of(store)[ATTEMPT])
    elsewhere, warnings = on_another_node(store), []
    assert elsewhere.find("train", KEY, warnings.append) is None
    (warning,) = warnings
    assert f"train/{KEY}: {problem}" in warning
    assert elsewhere.find("train", KEY, pytest.fail) is None
    assert create(elsewhere) == elsewhere.find("train", KEY, pytest.fail)
    assert any(name.startswith(f"train/{KEY}/manifest.damaged-") for name in files_in(store.root))


def test_an_object_that_is_gone_is_seen_though_this_node_has_a_copy(store):
    create(store)
    remove(store.root / "train" / KEY / manifest_of(store)[ATTEMPT] / "history.jsonl")
    assert store.find("train", KEY, lambda warning: None) is None
    create(store)
    assert on_another_node(store).find("train", KEY, pytest.fail) is not None


def test_a_half_fetched_copy_of_a_killed_process_goes_with_the_next_fetch(store):
    create(store)
    there = on_another_node(store)
    (left := local(store.root) / "train" / f".copy-{KEY}-killed" / "model").mkdir(parents=True)
    assert there.find("train", KEY, pytest.fail) is not None
    assert not left.parent.exists()


def test_a_copy_that_rots_is_fetched_again(store):
    made = create(store)
    (made.folder / "history.jsonl").write_text("rot")
    assert store.find("train", KEY, pytest.fail) == made
    assert damage(made.folder) is None


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(writers=st.integers(2, 4), late=st.integers(0, 1))
def test_of_several_writers_one_stands_and_readers_see_whole_artifacts(store, monkeypatch, tmp_path, writers, late):
    """Each on a node of its own; `late`: whether they all meet once more when all files are sent and no manifest is written."""
    key, together = f"{next(FOLDERS):016d}", Barrier(writers)
    nodes = [RemoteStore(store.root) for _ in range(writers)]
    for number, node in enumerate(nodes):
        node.copies.root = tmp_path / key / str(number)  # where each fills; what all read is the copy of this process
    sent = copies.send

    def send(*arguments):
        sent(*arguments)
        if late:
            together.wait(timeout=60)

    monkeypatch.setattr(remote_store, "send", send)

    def create_with(number):
        def fill_together(folder):
            for name in "abc":
                (folder / name).write_text(f"{name} of {number}")
            together.wait(timeout=60)
            return {"metrics": {"number": number}}

        made = nodes[number].create("train", key, {}, fill_together)
        assert damage(made.folder) is None
        return made

    with ThreadPoolExecutor(writers) as pool:
        if not late:
            monkeypatch.setattr(remote_store, "send", sent)
        list(pool.map(create_with, range(writers)))
    found = RemoteStore(store.root).find("train", key, pytest.fail)
    number = found.metrics["number"]
    assert [(found.folder / name).read_text() for name in "abc"] == [f"{name} of {number}" for name in "abc"]


def test_the_first_writer_wins(store, monkeypatch, tmp_path):
    first = create(store)
    second = RemoteStore(store.root)
    second.copies.root = tmp_path  # another node

    def other(folder):
        (folder / "other").write_text("mine")
        return {"metrics": {"final_loss": 2.0}}

    assert create(second, other) == first
    assert len({name.split("/")[2] for name in files_in(store.root)} - {MANIFEST}) == 1


def test_parts_outlive_a_stage_cut_off_and_go_with_one_that_is_done(store):
    with pytest.raises(KeyError), store.parts("train", KEY) as parts:
        write(parts / "unit", b"done")
        raise KeyError
    with store.parts("train", KEY) as again:
        assert again == parts
        assert read(again / "unit") == b"done"
        with store.parts("train", KEY) as other:  # another run of the same stage
            assert other != again
            write(other / "unit", b"its own")
        assert read(again / "unit") == b"done"
    assert files_in(store.root) == {}


@pytest.mark.parametrize("alive", [True, False])
def test_parts_held_on_another_machine_are_left_to_it_while_it_lives(store, monkeypatch, alive):
    holder = store.root / "train" / f".{KEY}.parts" / HOLDER
    write(holder, b"elsewhere 1")
    monkeypatch.setattr(lease.time, "sleep", lambda seconds: write(holder, b"elsewhere 2") if alive else None)
    with store.parts("train", KEY) as parts:
        assert (parts / HOLDER != holder) == alive


def test_a_holder_says_that_it_lives(store, monkeypatch):
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.01)
    with store.parts("train", KEY) as parts:
        seen = {read(parts / HOLDER)}
        while len(seen) < 3:
            seen.add(read(parts / HOLDER))


def test_a_store_that_does_not_answer_is_one_line(bucket):
    gone = RemoteStore(Uri("s3://no-such-bucket", "artifacts"))
    with pytest.raises(StageFailed, match="storage s3://no-such-bucket") as told:
        create(gone)
    assert "\n" not in str(told.value)


def test_a_bucket_that_is_not_there_is_told_before_anything_starts(bucket):
    with pytest.raises(
        ConfigError, match=r"storage: s3://no-such-bucket/runs cannot be written and read .*NO_SUCH_BUCKET"
    ) as told:
        check_storage(Uri("s3://no-such-bucket", "runs"))
    assert "\n" not in str(told.value)
    check_storage(bucket / "runs")


def test_a_wrong_key_is_told_before_anything_starts(bucket, monkeypatch):
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)
    with pytest.raises(ConfigError, match=r"ACCESS|Forbidden|403") as told:
        check_storage(bucket / "runs")
    assert "\n" not in str(told.value)
    assert "testing" not in str(told.value), "the key"
