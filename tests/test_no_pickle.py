"""Nothing is unpickled from storage: by every call in the source, and by pickles with a side effect where a run reads."""

import ast
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from model_folders import copied
from tiny_runs import ROOT
from touch import Touch

from raw2s.config.yaml_file import load_yaml
from raw2s.errors import ConfigError
from raw2s.labels.table import read_table
from raw2s.models.load import load_model
from raw2s.models.whole import model_problem
from raw2s.pipeline.artifacts import MANIFEST, ArtifactStore
from raw2s.pipeline.finished import finished_results
from raw2s.pipeline.jsonl import read_jsonl
from raw2s.pipeline.testing_stages import Test as Scored  # pytest would collect a name that begins with Test

UNPICKLES = {
    "raw2s/labeling/units.py": {"ray.cloudpickle.loads"},  # an argument that this run's driver gave its actor
    "raw2s/training/checkpoints.py": {
        "*.load_checkpoint",
        "deepspeed.checkpoint.ds_to_universal.main",
    },  # after `require_unchanged`
    "raw2s/tuning/log.py": {"ray.cloudpickle.loads"},  # a trial's error, from this run's own session of Ray, not from storage
}
"""All there is, by file."""
PICKLERS = ("pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle")


def unpickling(source: str) -> set[str]:
    """The calls in a source that may unpickle, by their full names."""
    tree = ast.parse(source)
    names = dict(_imported(tree))
    return {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and (name := _dotted(node.func, names))
        if _unpickles(name, {word.arg: getattr(word.value, "value", ...) for word in node.keywords})
    }


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (alias.asname, alias.name) if alias.asname else (alias.name.split(".")[0],) * 2
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _dotted(called: ast.expr, names: dict[str, str]) -> str:
    """`np.load` as numpy.load; what hangs on a value of our own as *.method."""
    if isinstance(called, ast.Name):
        return names.get(called.id, called.id)
    if isinstance(called, ast.Attribute):
        before = _dotted(called.value, names)
        known = isinstance(called.value, ast.Attribute) or (isinstance(called.value, ast.Name) and called.value.id in names)
        return f"{before if known else '*'}.{called.attr}"
    return ""


def _unpickles(name: str, keywords: dict[str, object]) -> bool:
    *where, last = name.split(".")
    if where[:1] == ["torch"] and last == "load":
        return keywords.get("weights_only") is not True
    if where == ["numpy"] and last == "load":
        return keywords.get("allow_pickle", False) is not False
    if last in ("load", "loads", "Unpickler", "open") and set(where) & set(PICKLERS):
        return True
    return last in ("read_pickle", "load_checkpoint", "unsafe_load", "full_load") or name.endswith("ds_to_universal.main")


def test_no_other_call_may_unpickle():
    files = [file for part in ("raw2s", "jobs") for file in sorted((ROOT / part).rglob("*.py"))]
    found = {str(file.relative_to(ROOT)): unpickling(file.read_text()) for file in files}
    assert {name: calls for name, calls in found.items() if calls} == UNPICKLES


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle; pickle.load(f)", {"pickle.load"}),
        ("from pickle import loads as read; read(b)", {"pickle.loads"}),
        ("import ray; ray.cloudpickle.loads(b)", {"ray.cloudpickle.loads"}),
        ("import torch; torch.load(f)", {"torch.load"}),
        ("import torch; torch.load(f, weights_only=no)", {"torch.load"}),
        ("import torch; torch.load(f, weights_only=True)", set()),
        ("import numpy as np; np.load(f, allow_pickle=True)", {"numpy.load"}),
        ("import numpy as np; np.load(f)", set()),
        ("import joblib; joblib.load(f)", {"joblib.load"}),
        ("import pandas as pd; pd.read_pickle(f)", {"pandas.read_pickle"}),
        ("def f(engine): engine.load_checkpoint(x)", {"*.load_checkpoint"}),
        ("import json; json.load(f)", set()),
    ],
)
def test_a_call_that_may_unpickle_is_found(source, found):
    assert unpickling(source) == found


@pytest.fixture
def put(tmp_path) -> Iterator[Callable[[Path], Path]]:
    """Writes the pickle in a file's place; afterwards nobody has unpickled it."""
    marker = tmp_path / "unpickled"
    pickle.loads(pickle.dumps(Touch(marker)))
    assert marker.exists(), "the pickle works"
    marker.unlink()

    def write(file: Path) -> Path:
        file.write_bytes(pickle.dumps(Touch(marker)))
        return file

    yield write
    assert not marker.exists()


def is_one_sentence(error: BaseException | str) -> bool:
    return 10 < len(str(error)) < 400 and "\n" not in str(error).strip()


def test_pickled_weights_beside_whole_ones_are_not_read(tmp_path, put):
    folder = Path(copied(tmp_path / "model"))
    for name in ("pytorch_model.bin", "training_args.bin", "adapter_model.bin"):
        put(folder / name)
    assert model_problem(str(folder)) is None
    assert load_model(str(folder), "text").num_parameters() > 0


def test_nor_in_their_stead(tmp_path, put):
    folder = Path(copied(tmp_path / "model", "model.safetensors"))
    put(folder / "pytorch_model.bin")
    assert "has no model.safetensors" in model_problem(str(folder))
    with pytest.raises(ValueError, match="cannot be loaded") as refused:
        load_model(str(folder), "text")
    assert is_one_sentence(refused.value)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_nor_under_another_name(name, tmp_path, put):
    folder = Path(copied(tmp_path / "model"))
    put(folder / name)
    assert is_one_sentence(model_problem(str(folder)))


def counts(folder: Path) -> Path:
    (folder / "model").mkdir()
    np.save(folder / Scored.COUNTS, np.zeros((2, 1)))
    (folder / "model" / "model.safetensors").write_text("weights")
    return folder


@pytest.mark.parametrize("name", [MANIFEST, Scored.COUNTS, "model/model.safetensors"])
def test_a_changed_artifact_is_put_aside(name, tmp_path, put):
    store, said = ArtifactStore(tmp_path / "artifacts"), []
    made = store.create("test", "0" * 16, {}, lambda folder: {"metrics": {"files": len(list(counts(folder).iterdir()))}})
    put(made.folder / name)
    assert store.find("test", "0" * 16, said.append) is None
    assert len(said) == 1 and is_one_sentence(said[0])


def test_and_where_its_sums_agree_its_readers_refuse(tmp_path, put):
    """The next door behind the store's: whoever can write there can write the manifest too."""
    for read, error in [
        (lambda file: Scored.counts(Scored, file.parent), ValueError),
        (read_jsonl, ValueError),
        (read_table, pa.ArrowInvalid),
        (lambda file: json.loads(file.read_text()), ValueError),
    ]:
        with pytest.raises(error) as refused:
            read(put(tmp_path / Scored.COUNTS))
        assert is_one_sentence(refused.value)


def test_an_array_of_objects_is_refused(tmp_path, put):
    array = np.array([None], dtype=object)
    array[0] = Touch(tmp_path / "unpickled")
    np.save(tmp_path / Scored.COUNTS, array, allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        Scored.counts(Scored, tmp_path)


def test_a_unit_of_labels_is_asked_again(tmp_path, put):
    from raw2s.labeling.units import _readable

    file = put(tmp_path / "0123456789abcdef.parquet")
    assert not _readable(file) and not file.exists()


def test_results_of_a_run_are_refused(tmp_path, put):
    put(tmp_path / "results.json")
    with pytest.raises(ConfigError) as refused:
        finished_results(tmp_path)
    assert is_one_sentence(refused.value)


def test_a_config_makes_no_objects(tmp_path, put):
    file = tmp_path / "config.yaml"
    file.write_text(
        f"name: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [{tmp_path / 'unpickled'}]]\n"
    )
    with pytest.raises(ConfigError) as refused:
        load_yaml(file)
    assert is_one_sentence(refused.value)
