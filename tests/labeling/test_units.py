import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st
from pyarrow.fs import FileSystemHandler, PyFileSystem

from raw2s.errors import StageFailed
from raw2s.labeling import units as units_module
from raw2s.labeling.cross_scores import cross_score
from raw2s.labeling.prompts import answer, prompt_units
from raw2s.labeling.units import Answered, Pool, PromptProgress, UnitActor, _readable, gather, unit_name
from raw2s.labels.table import ANSWER, BEAMS, in_order
from raw2s.section import Actors
from raw2s.storage import files as files_module
from raw2s.storage.files import read, write

SCHEMA = pa.schema([*ANSWER, ("shout", pa.string())])
NO_BOARD = PromptProgress(None, "label", 0)
texts = st.dictionaries(st.integers(-5, 500), st.text(max_size=8), max_size=30)


def shouting(unit):
    """A teacher that answers in capitals, and refuses a unit that holds a prompt without letters."""
    for prompt in unit["prompts"]:
        if not prompt.strip():
            raise ValueError(f"the prompt {prompt!r}\nis empty")
    return [{"shout": prompt.upper()} for prompt in unit["prompts"]]


def finished(folder, units, teacher=shouting):
    """The files of `units`, answered one after another without Ray."""
    actor = UnitActor(ray.cloudpickle.dumps(lambda: teacher), SCHEMA, NO_BOARD, "teacher")
    files = [folder / f"{unit_name(unit)}.parquet" for unit in units]
    for unit, file in zip(units, files, strict=True):
        actor({"unit": json.dumps(unit), "file": str(file)})
    return files


@given(prompts=texts, size=st.integers(1, 7), rotated=st.integers(0, 29))
def test_units_hold_every_prompt_once_and_depend_on_the_prompts_alone(prompts, size, rotated):
    ids = list(prompts)
    units = prompt_units(ids, list(prompts.values()), size)
    assert sorted(i for unit in units for i in unit["ids"]) == sorted(ids)
    assert all(prompts[i] == prompt for unit in units for i, prompt in zip(unit["ids"], unit["prompts"], strict=True))
    assert all(1 <= len(unit["ids"]) <= size for unit in units)
    assert max((len(u["ids"]) for u in units[:-1]), default=size) == size
    moved = ids[rotated:] + ids[:rotated]
    assert prompt_units(moved, [prompts[i] for i in moved], size) == units


def test_a_units_name_is_its_content():
    (unit,) = prompt_units([1, 2], ["a", "b"], 9, {1: ["x"], 2: []})
    assert unit_name(unit) == unit_name(json.loads(json.dumps(unit)))
    others = [
        prompt_units([1, 2], ["a", "b"], 9)[0],
        prompt_units([1, 2], ["a", "b"], 9, {1: ["y"], 2: []})[0],
        prompt_units([1, 3], ["a", "b"], 9, {1: ["x"], 3: []})[0],
    ]
    assert len({unit_name(u) for u in [unit, *others]}) == 4


@given(prompts=texts, size=st.integers(1, 7))
def test_what_a_teacher_refuses_is_rejected_with_the_reason_and_nothing_else(tmp_path_factory, prompts, size):
    folder = tmp_path_factory.mktemp("units")
    units = prompt_units(list(prompts), list(prompts.values()), size)
    answered = gather(units, finished(folder, units), SCHEMA)
    refused = {i for i, prompt in prompts.items() if not prompt.strip()}
    assert answered.rejected.keys() == refused
    assert all("is empty" in reason and "\n" not in reason for reason in answered.rejected.values())
    shouted = {row["id"]: row["shout"] for row in answered.answers.to_pylist()}
    assert shouted == {i: prompt.upper() for i, prompt in prompts.items() if i not in refused}
    assert len(answered.answers) == len(shouted)


def test_a_refused_unit_is_asked_again_prompt_by_prompt():
    (unit,) = prompt_units([1, 2, 3], ["a", "", "b"], 9, {1: ["x"], 2: ["y"], 3: ["z"]})
    calls = []

    def teacher(asked):
        calls.append(asked)
        return shouting(asked)

    rows = answer(teacher, unit)
    assert [row["id"] for row in rows] == unit["ids"] == [2, 1, 3]
    assert calls[1:] == [{k: [v[n]] for k, v in unit.items()} for n in range(3)]


def test_another_error_is_not_a_reject():
    (unit,) = prompt_units([1], ["a"], 9)
    with pytest.raises(KeyError):
        answer(lambda asked: asked["nothing"], unit)


def test_a_finished_unit_is_not_answered_again(tmp_path):
    units = prompt_units([1, 2], ["a", "b"], 1)
    before = [file.read_bytes() for file in finished(tmp_path, units)]
    files = finished(tmp_path, units, teacher=lambda unit: pytest.fail("answered again"))
    assert [file.read_bytes() for file in files] == before
    assert sorted(tmp_path.iterdir()) == sorted(files)  # nothing unfinished is left beside them
    assert gather(units, files, SCHEMA).seconds > 0


def test_units_lie_under_a_uri_as_in_a_folder(bucket, tmp_path):
    units = prompt_units([1, 2, 3], ["a", "", "b"], 2)
    there, here = finished(bucket / "units", units), finished(tmp_path, units)
    assert finished(bucket / "units", units, teacher=lambda unit: pytest.fail("answered again")) == there
    found, same = gather(units, there, SCHEMA), gather(units, here, SCHEMA)
    assert (found.answers, found.rejected) == (same.answers, same.rejected)
    assert [file.name for file in there] == [file.name for file in here]


def test_a_unit_that_was_cut_short_is_none(bucket, tmp_path):
    for folder in (tmp_path, bucket / "cut"):
        (file,) = finished(folder, prompt_units([1], ["a"], 1))
        whole = read(file)
        assert _readable(file)
        for cut in (whole[:-3], b""):
            write(file, cut)
            assert not _readable(file)
            assert read(file) is None


def test_a_unit_that_cannot_be_read_now_stays(bucket, tmp_path, monkeypatch):
    def fails(*_):
        raise OSError("When reading: AWS Error UNKNOWN (HTTP status 503): Slow down\nand more")

    handler = type("Ailing", (FileSystemHandler,), dict.fromkeys(FileSystemHandler.__abstractmethods__, fails))
    for folder, told in ((tmp_path, OSError), (bucket / "ailing", StageFailed)):
        (file,) = finished(folder, prompt_units([1], ["a"], 1))
        with monkeypatch.context() as patch:
            for module in (units_module, files_module):
                patch.setattr(module, "filesystem", lambda where: (PyFileSystem(handler()), str(where)))
            patch.setattr(units_module, "remove", lambda file: pytest.fail("removed"))
            with pytest.raises(told, match="503"):
                _readable(file)
        assert _readable(file)


def test_files_that_do_not_hold_their_units_are_refused(tmp_path):
    units = prompt_units([1, 2], ["a", "b"], 1)
    files = finished(tmp_path, units)
    pq.write_table(pq.read_table(files[0]).slice(1), files[0])
    with pytest.raises(RuntimeError, match="once each"):
        gather(units, files, SCHEMA)


def test_no_units_give_an_empty_table():
    answered = gather([], [], SCHEMA)
    assert (len(answered.answers), answered.rejected, answered.prompts_per_second) == (0, {}, 0)


def test_only_texts_without_a_score_are_scored(monkeypatch, tmp_path):
    asked = {}

    def run_pass(make, units, pool, *, schema, folder, progress):
        asked[pool.name] = {i: texts for unit in units for i, texts in zip(unit["ids"], unit["candidates"], strict=True)}

        def length(unit):
            return [{"words": [[-float(len(t))] for t in ts], "tokens": [len(t) for t in ts]} for ts in unit["candidates"]]

        rows = [row for unit in units for row in answer(length, unit)]
        return Answered(pa.Table.from_pylist(rows, schema=schema), {}, 1.0)

    monkeypatch.setattr("raw2s.labeling.cross_scores.run_pass", run_pass)
    candidates = {7: ["ab", "c"], 3: ["d"], 5: ["new"]}
    old = {
        (7, "c"): {"words": [-9.0], "tokens": 9},
        (3, "d"): {"words": [-8.0], "tokens": 8},
        (5, "c"): {"words": [0.0], "tokens": 0},
    }
    prompts = {7: "x", 3: "y", 5: "z"}
    pools = [(Pool(name=name, model="", actors=Actors()), prompts) for name in ("old", "new")]
    scores = cross_score(pools, candidates, known={"old": old}, batch_size=2, folder=tmp_path, progress=NO_BOARD)
    assert asked == {"old": {7: ["ab"], 5: ["new"]}, "new": candidates}
    assert scores["old"].of(7) == [{"words": [-2.0], "tokens": 2}, {"words": [-9.0], "tokens": 9}]
    assert scores["old"].of(3) == [{"words": [-8.0], "tokens": 8}]
    assert scores["new"].of(7) == [{"words": [-2.0], "tokens": 2}, {"words": [-1.0], "tokens": 1}]


def test_a_table_without_answers_keeps_its_columns():
    assert in_order(BEAMS.empty_table(), [1, 2]).schema == BEAMS
