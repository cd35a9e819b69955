import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raw2s.pipeline.artifacts import MANIFEST, ArtifactStore, artifact_key

SETTINGS = {"seed": 1, "training": {"epochs": 3, "schedule": "linear"}}
INPUTS = {"split": "0123", "model": "4567"}
KEY = artifact_key("train", 1, SETTINGS, INPUTS)

names = st.sampled_from("abc")
leaves = st.none() | st.booleans() | st.integers(0, 3) | names
settings_trees = st.dictionaries(names, leaves | st.lists(leaves, max_size=2) | st.dictionaries(names, leaves))


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(tmp_path / "artifacts")


def fill(folder):
    (folder / "model").mkdir()
    (folder / "model" / "weights.bin").write_bytes(bytes(range(256)))
    (folder / "history.jsonl").write_text('{"loss": 1.0}\n')
    return {"metrics": {"final_loss": 1.0}}


def create(store, fill=fill):
    return store.create("train", KEY, {"settings": SETTINGS, "inputs": INPUTS}, fill)


def reordered(tree):
    if isinstance(tree, dict):
        return {key: reordered(tree[key]) for key in reversed(tree)}
    return [reordered(item) for item in tree] if isinstance(tree, list) else tree


@given(settings_trees, st.dictionaries(names, names))
def test_the_order_of_settings_and_inputs_is_not_in_the_key(settings, inputs):
    assert artifact_key("train", 1, reordered(settings), reordered(inputs)) == artifact_key("train", 1, settings, inputs)


@given(settings_trees, settings_trees)
def test_keys_are_equal_only_for_equal_settings(one, other):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (artifact_key("train", 1, one, INPUTS) == artifact_key("train", 1, other, INPUTS)) == same


def test_kind_version_settings_and_inputs_are_all_in_the_key():
    keys = {
        KEY,
        artifact_key("label", 1, SETTINGS, INPUTS),
        artifact_key("train", 1, SETTINGS | {"seed": 2}, INPUTS),
        artifact_key("train", 1, SETTINGS | {"training": {"epochs": 3, "schedule": "cosine"}}, INPUTS),
        artifact_key("train", 1, SETTINGS, INPUTS | {"model": "89ab"}),
        artifact_key("train", 1, SETTINGS, {"split": "4567", "model": "0123"}),
        artifact_key("train", 1, SETTINGS, {"split": "0123"}),
        artifact_key("train", 1, INPUTS, SETTINGS),
        artifact_key("train", 2, SETTINGS, INPUTS),
    }
    assert len(keys) == 9
    assert all(len(key) == 16 and int(key, 16) >= 0 for key in keys)


def test_nothing_is_found_before_it_is_made(store):
    warnings = []
    assert store.find("train", KEY, warnings.append) is None
    assert warnings == []


def test_what_was_created_is_found_with_its_manifest(store):
    made = create(store)
    found = store.find("train", KEY, pytest.fail)
    assert found == made
    assert found.folder == store.root / "train" / KEY
    assert found.metrics == {"final_loss": 1.0}
    manifest = json.loads((found.folder / MANIFEST).read_text())
    assert manifest == found.manifest
    assert {name: manifest[name] for name in ("kind", "key", "settings", "inputs")} == {
        "kind": "train", "key": KEY, "settings": SETTINGS, "inputs": INPUTS,
    }  # fmt: skip
    assert manifest["seconds"] >= 0
    assert manifest["versions"].keys() >= {"raw2s", "ray", "torch", "deepspeed"}
    assert manifest["files"] == {
        name: hashlib.sha256((found.folder / name).read_bytes()).hexdigest() for name in ("history.jsonl", "model/weights.bin")
    }
    assert {path.name for path in found.folder.iterdir()} == {"history.jsonl", "model", MANIFEST}
    assert found.folder.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in found.folder.parent.iterdir()] == [KEY]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_fill_leaves_nothing(store, error):
    def breaks(folder):
        fill(folder)
        raise error

    with pytest.raises(error):
        create(store, breaks)
    assert list((store.root / "train").iterdir()) == []
    assert store.find("train", KEY, pytest.fail) is None
    assert create(store).metrics == {"final_loss": 1.0}


def test_nothing_can_be_found_while_it_is_being_filled(store):
    def looks(folder):
        assert store.find("train", KEY, pytest.fail) is None
        return fill(folder)

    create(store, looks)
    assert store.find("train", KEY, pytest.fail) is not None


def flip_a_byte(folder):
    file = folder / "model" / "weights.bin"
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)


DAMAGE = {
    "a flipped byte": (flip_a_byte, "model/weights.bin has changed"),
    "a cut file": (lambda folder: (folder / "history.jsonl").write_text(""), "history.jsonl has changed"),
    "a missing file": (lambda folder: (folder / "history.jsonl").unlink(), "history.jsonl is missing"),
    "no manifest": (lambda folder: (folder / MANIFEST).unlink(), "manifest"),
    **{
        f"a manifest of {content!r}": (lambda folder, content=content: (folder / MANIFEST).write_bytes(content), "manifest")
        for content in (b"", b'{"files": {', b"{}", b"null", b"[]", b'{"files": []}', b'{"files": null}', b"\xff\xfe")
    },
}


@pytest.mark.parametrize(("damage", "problem"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_told_and_moved_aside(store, damage, problem):
    folder = create(store).folder
    damage(folder)
    warnings = []
    assert store.find("train", KEY, warnings.append) is None
    (warning,) = warnings
    assert f"train/{KEY}" in warning
    assert problem in warning
    (aside,) = folder.parent.iterdir()
    assert aside.name != KEY
    assert aside.name in warning
    assert create(store) == store.find("train", KEY, pytest.fail)  # built again beside it


def test_what_a_killed_run_left_is_swept_and_what_a_living_one_fills_is_not(store):
    script = f"""
import os
from pathlib import Path
from raw2s.pipeline.artifacts import ArtifactStore
def fill(folder):
    (folder / "half").write_text("done")
    os._exit(9)
ArtifactStore(Path({str(store.root)!r})).create("train", {KEY!r}, {{}}, fill)
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 9
    (left,) = (store.root / "train").iterdir()
    assert store.find("train", KEY, pytest.fail) is None

    def fills_while_another_does(folder):
        assert not left.exists()
        create(store)
        assert folder.is_dir()
        return fill(folder)

    create(store, fills_while_another_does)
    assert [path.name for path in (store.root / "train").iterdir()] == [KEY]


def test_what_a_dying_run_held_is_swept_by_who_makes_the_stage_meanwhile(store):
    """A trial that Tune stopped is killed seconds later: its folder was still held when the sweep made the same stage."""
    script = f"""
import sys
from pathlib import Path
from raw2s.pipeline.artifacts import ArtifactStore
def fill(folder):
    print("filling", flush=True)
    sys.stdin.read()
ArtifactStore(Path({str(store.root)!r})).create("train", {KEY!r}, {{}}, fill)
"""
    dying = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def fills_while_it_dies(folder):
        (held,) = [path for path in folder.parent.iterdir() if path != folder]
        dying.kill()
        dying.wait(timeout=60)
        assert held.is_dir()
        return fill(folder)

    try:
        assert dying.stdout.readline() == b"filling\n"
        create(store, fills_while_it_dies)
    finally:
        dying.kill()
        dying.communicate(timeout=60)
    assert [path.name for path in (store.root / "train").iterdir()] == [KEY]


def test_parts_outlive_a_stage_cut_off_and_go_with_one_that_is_done(store):
    with pytest.raises(KeyError), store.parts("train", KEY) as parts:
        (parts / "unit").write_text("done")
        raise KeyError
    with store.parts("train", KEY) as again:
        assert again == parts
        assert (again / "unit").read_text() == "done"
        with store.parts("train", KEY) as other:  # another run of the same stage
            assert other != again
            (other / "unit").write_text("its own")
            create(store)
            assert (other / "unit").is_file(), "its maker lives"
        assert (again / "unit").read_text() == "done"
    assert [path.name for path in (store.root / "train").iterdir()] == [KEY]


def test_a_killed_second_makers_parts_are_swept(store):
    script = f"""
import os
from pathlib import Path
from raw2s.pipeline.artifacts import ArtifactStore
with ArtifactStore(Path({str(store.root)!r})).parts("train", {KEY!r}) as parts:
    (parts / "unit").write_text("its own")
    os._exit(9)
"""
    with store.parts("train", KEY) as first:
        assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 9
        assert len(list(first.parent.iterdir())) == 2
        create(store)
        assert {path.name for path in first.parent.iterdir()} == {KEY, first.name}


def test_parts_that_are_done_are_out_of_the_way_before_they_are_deleted(store, monkeypatch):
    """Killed amid the deletion, the next maker of the stage must not go on with the half that is left."""
    with monkeypatch.context() as patch, store.parts("train", KEY) as parts:
        (parts / "unit").write_text("done")
        patch.setattr("raw2s.pipeline.artifacts.shutil.rmtree", lambda *_, **__: None)
    with store.parts("train", KEY) as again:
        assert again == parts and not (again / "unit").exists()
        create(store)
        assert {path.name for path in again.parent.iterdir()} == {KEY, again.name}, "and is swept"


@pytest.fixture
def busy_threads():
    """Threads that take turns a thousand times more often than usual, so that races show."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("busy_threads")
@pytest.mark.parametrize("_round", range(10))
def test_concurrent_creators_of_one_key_end_with_one_whole_artifact(store, _round):
    creators = 8
    together = Barrier(creators)

    def create_with(number):
        def fill_together(folder):
            together.wait(timeout=60)
            (folder / "number").write_text(str(number))
            return {"metrics": {"number": number}}

        together.wait(timeout=60)
        return create(store, fill_together)

    with ThreadPoolExecutor(creators) as pool:
        made = list(pool.map(create_with, range(creators)))
    found = store.find("train", KEY, pytest.fail)
    assert all(artifact == found for artifact in made)
    assert (found.folder / "number").read_text() == str(found.metrics["number"])
    assert list(found.folder.parent.iterdir()) == [found.folder]
