"""A task of one's own by YAML alone: three formats, two forms, B with and without answers, and every mistake in its line."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from raw2s.tasks import AnyTask, draw_halves, task_of
from raw2s.tasks.own_rows import parse_entities
from raw2s.tasks.sources import read_source

CLASSES = ["entails", "neutral", "contradicts", "unclear"]
CONFIG = """
name: own
form: classes
train: train.jsonl
validation: dev.jsonl
test: test.jsonl
prompt: "{premise}\\n{hypothesis}\\n"
answer: label
metric: accuracy
"""
TEXT = {"form": "text", "metric": "exact_match", "answer": "summary", "prompt": "{premise} ->"}
APART = {"train": None, "teacher": "train.jsonl", "student": "b.jsonl"}


def rows(start, n):
    return [
        {
            "premise": f"it is {i}",
            "hypothesis": f"so {i}",
            "label": CLASSES[i % 4],
            "summary": f"number {i}",
            "n": i,
            "uid": 1000 + i,
        }
        for i in range(start, start + n)
    ]


def write(file, table):
    if file.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(table), file)
    elif file.suffix == ".csv":
        with file.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in table))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory of a run, with good files."""
    for suffix in (".jsonl", ".csv", ".parquet"):
        for name, table in {"train": rows(0, 20), "b": rows(30, 9), "dev": rows(50, 8), "test": rows(60, 12)}.items():
            write(tmp_path / f"{name}{suffix}", table)
    monkeypatch.chdir(tmp_path)
    task_of.cache_clear()  # every test has other files under the same names
    return tmp_path


def section(**changes):
    """The section of the config's text with some keys changed; None takes a key away."""
    tree = yaml.safe_load(CONFIG) | changes
    return TypeAdapter(AnyTask).validate_python({key: value for key, value in tree.items() if value is not None})


def test_the_classes_are_sorted_and_the_prompt_is_filled(folder):
    task = task_of(section())
    assert (task.form, task.classes, task.metric.name) == ("classes", tuple(sorted(CLASSES)), "accuracy")
    assert not task.chat
    assert not task.notes
    test = task.held_out("test")
    assert sorted(example["id"] for example in test) == list(range(12))  # the rows, from 0
    for example in test:
        i = 60 + example["id"]
        assert example["prompt"] == f"it is {i}\nso {i}\n"
        assert example["target"] == example["gold"] == CLASSES[i % 4]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_formats_say_the_same(folder, suffix):
    files = {"train": f"train{suffix}", "validation": f"dev{suffix}", "test": f"test{suffix}"}
    one, other = task_of(section()), task_of(section(**files, id="uid"))
    for part in ("validation", "test"):
        assert [e["prompt"] for e in one.held_out(part)] == [e["prompt"] for e in other.held_out(part)]
        assert [e["target"] for e in one.held_out(part)] == [e["target"] for e in other.held_out(part)]
    assert {example["id"] for example in other.held_out("test")} == set(range(1060, 1072))
    assert [e["prompt"] for e in one.draw(3).teacher] == [e["prompt"] for e in other.draw(3).teacher]


def test_a_folder_is_its_files_by_name_one_after_the_other(folder):
    parts = folder / "parts"
    parts.mkdir()
    write(parts / "2.csv", rows(10, 10))
    write(parts / "1.jsonl", rows(0, 10))
    (parts / "README.md").write_text("not data")
    assert [row.values["premise"] for row in read_source("task.train", "parts", "train")] == [f"it is {i}" for i in range(20)]
    assert task_of(section(train="parts", prompt="{n}")).draw(0).teacher[0]["prompt"].isdigit()


@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 8))
def test_a_and_b_are_disjoint_and_move_with_the_seed_alone(seed, n_teacher, n_student):
    own = section(n_teacher=n_teacher, n_student=n_student)
    task = _task_of_made_rows(own)
    halves = task.draw(seed)
    assert (len(halves.teacher), len(halves.student)) == (n_teacher, n_student)
    assert not {e["id"] for e in halves.teacher} & {e["id"] for e in halves.student}
    assert task.draw(seed) == halves


def _task_of_made_rows(own, table=None):
    from unittest import mock

    from raw2s.tasks import own as module
    from raw2s.tasks.sources import SourceRow

    made = [SourceRow(f"row {n}", row) for n, row in enumerate(table or rows(0, 20))]
    with mock.patch.object(module, "read_source", lambda *_: made):
        return module.OWN.make(own)


def test_a_split_seed_fixes_a_and_b_for_every_seed_of_a_run(folder):
    moving, fixed = section(), section(split_seed=5)
    assert draw_halves(moving, 1) != draw_halves(moving, 2)
    assert draw_halves(fixed, 1) == draw_halves(fixed, 2) == draw_halves(moving, 5)


def test_without_sizes_a_is_half_and_b_the_rest(folder):
    write(folder / "train.jsonl", rows(0, 21))
    halves = draw_halves(section(), 0)
    assert (len(halves.teacher), len(halves.student)) == (10, 11)
    assert len(draw_halves(section(n_teacher=4), 0).student) == 17


def test_files_apart_keep_their_order_and_b_may_lack_answers(folder):
    table = rows(30, 9)
    table[2].pop("label")
    table[3]["label"] = None
    table[4]["label"] = ""
    write(folder / "b.jsonl", table)
    halves = draw_halves(section(**APART), 0)
    assert [example["id"] for example in halves.teacher] == list(range(20))
    assert [example["id"] for example in halves.student] == list(range(9))
    lacking = [example["id"] for example in halves.student if example["target"] is None]
    assert lacking == [2, 3, 4] == [example["id"] for example in halves.student if example["gold"] is None]
    some = draw_halves(section(**APART, n_teacher=5, n_student=3), 1)
    assert [len(some.teacher), len(some.student)] == [5, 3]
    assert some != draw_halves(section(**APART, n_teacher=5, n_student=3), 2)


def test_b_may_lack_the_column_of_answers_altogether(folder):
    write(folder / "b.csv", [{"premise": "it is", "hypothesis": "so"}])
    assert draw_halves(section(**APART | {"student": "b.csv"}), 0).student == [
        {"id": 0, "prompt": "it is\nso\n", "target": None, "gold": None}
    ]


HELD_OUT = {"validation": None, "test": None}
"""One file holds everything."""


def part_ids(task, seed):
    """The ids of A, B, validation and test."""
    halves = task.draw(seed)
    return [
        {e["id"] for e in part} for part in (halves.teacher, halves.student, task.held_out("validation"), task.held_out("test"))
    ]


def test_of_one_file_a_tenth_is_held_out_twice_whatever_the_seed(folder):
    task = task_of(section(**HELD_OUT))
    a, b, validation, test = part_ids(task, 1)
    assert [len(part) for part in (a, b, validation, test)] == [8, 8, 2, 2]
    assert a | b | validation | test == set(range(20)), "every row once"
    assert part_ids(task, 2)[2:] == [validation, test]
    assert part_ids(task, 2)[0] != a
    assert not task.notes
    sized = part_ids(task_of(section(**HELD_OUT, n_validation=3, n_test=5, n_teacher=4)), 1)
    assert [len(part) for part in sized] == [4, 8, 3, 5]


@given(seed=st.integers(0, 2**31), unanswered=st.sets(st.integers(0, 19), max_size=12))
def test_of_one_file_what_has_no_answer_is_in_b_alone(seed, unanswered):
    table = [row | ({"label": None} if i in unanswered else {}) for i, row in enumerate(rows(0, 20))]
    task = _task_of_made_rows(section(**HELD_OUT, classes=CLASSES), table)
    a, b, validation, test = part_ids(task, seed)
    assert unanswered <= b
    assert a | b | validation | test == set(range(20))
    assert len(a) + len(b) + len(validation) + len(test) == 20
    assert bool(task.notes) == bool(unanswered)


def test_given_classes_keep_their_order_and_one_may_be_unused(folder):
    assert task_of(section(classes=[*CLASSES, "other"])).classes == (*CLASSES, "other")


def test_classes_may_be_numbers(folder):
    for name, n in {"train": 20, "dev": 8, "test": 12}.items():
        write(folder / f"{name}.jsonl", [{"premise": f"{name} {i}", "label": [0, 1.0, 2][i % 3]} for i in range(n)])
    assert task_of(section(prompt="{premise}")).classes == ("0", "1", "2")
    assert task_of(section(prompt="{premise}", classes=[2, 1, 0])).classes == ("2", "1", "0")


def test_macro_f1_has_the_classes(folder):
    task = task_of(section(metric="macro_f1"))
    gold = [example["gold"] for example in task.held_out("test")]
    assert task.metric.score(task.metric.counts(gold, gold).mean(axis=0)) == 1
    assert task.metric.score(task.metric.counts(gold, [CLASSES[0]] * len(gold)).mean(axis=0)) == pytest.approx(0.1)


@pytest.mark.parametrize("metric", ["exact_match", "rouge_l"])
def test_a_text_is_compared_without_the_space_around_it(folder, metric):
    task = task_of(section(**TEXT | {"metric": metric}))
    test = task.held_out("test")
    assert task.classes == ()
    assert test[0]["prompt"].endswith(" ->")
    gold = [example["gold"] for example in test]
    counts = task.metric.counts(gold, [task.parse(f" {example['target']}\n") for example in test])
    assert task.metric.score(counts.mean(axis=0)) == pytest.approx(1)


def test_slots_are_json_objects_of_texts_or_lists_of_texts(folder):
    for name in ("train", "dev", "test"):
        write(
            folder / f"{name}.jsonl",
            [{"premise": f"{name} {i}", "slots": '{"time": "nine", "name": ["ann", "bob"]}'} for i in range(4)],
        )
    task = task_of(section(**TEXT | {"metric": "slu_f1", "answer": "slots"}))
    gold = [example["gold"] for example in task.held_out("test")]
    assert gold[0] == [["time", "nine"], ["name", "ann"], ["name", "bob"]]
    assert task.nothing == []
    half = task.metric.counts(gold, [task.parse('{"time": "nine"}')] * 4)
    assert task.metric.score(half.mean(axis=0)) == pytest.approx(0.5)


@given(st.text() | st.text('{}[]":, ab\\', max_size=30))
def test_no_text_makes_the_parser_of_slots_raise(text):
    parsed = parse_entities(text)
    assert parsed is None or all(isinstance(kind, str) and filler.strip() for kind, filler in parsed)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "9" * 5_000, "[1]", "null", '{"a": 1}', '{"a": [["b"]]}', '{"a": " "}', '{"a": {"b": "c"}}']
)
def test_what_is_no_object_of_texts_is_none(text):
    assert parse_entities(text) is None


def test_chat_is_the_tasks_to_say(folder):
    assert task_of(section(chat=True)).chat


def test_numbers_are_written_and_doubled_braces_are_braces(folder):
    assert task_of(section(prompt="{{n}} = {n}: {premise}")).held_out("test")[0]["prompt"].startswith("{n} = 6")


def test_repeated_texts_are_counted_and_none_is_dropped(folder):
    write(folder / "train.jsonl", [*rows(0, 20), *rows(0, 3)])
    write(folder / "test.jsonl", rows(50, 12))
    task = task_of(section())
    halves = task.draw(0)
    assert len(halves.teacher) + len(halves.student) == 23
    assert task.notes == (
        "3 of 23 prompts to learn from repeat another, so A and B may share texts",
        "8 prompts of task.test are also in task.validation",
    )
    write(folder / "dev.jsonl", rows(18, 4))
    task_of.cache_clear()
    assert "2 of 4 prompts of task.validation are also among those to learn from" in task_of(section()).notes


def test_a_hub_data_set_gives_the_split_of_its_key_and_the_names_of_its_classes(folder, monkeypatch):
    import datasets

    asked = []

    def load_dataset(path, name, split, **more):
        asked.append((path, name, split, more.get("revision")))
        if path == "old/script" and not more:
            raise RuntimeError("Dataset scripts are no longer supported, but found script.py")
        features = datasets.Features({"premise": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
        return datasets.Dataset.from_list([{"premise": f"{split} {i}", "label": i % 2} for i in range(6)], features=features)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    hub = {"train": "org/nli:en@train[:50%]", "validation": "org/nli", "test": "old/script"}
    task = task_of(section(**hub, prompt="{premise}"))
    assert task.classes == ("no", "yes")
    assert asked == [
        ("org/nli", "en", "train[:50%]", None),
        ("org/nli", None, "validation", None),
        ("old/script", None, "test", None),
        ("old/script", None, "test", "refs/convert/parquet"),
    ]


def line_of(**changes):
    """The one line that a mistake gives."""
    task_of.cache_clear()
    try:
        own = section(**changes)
    except ValidationError as error:
        messages = [e["msg"] for e in error.errors()]
        assert len(messages) == 1
        return messages[0].removeprefix("Value error, ")
    with pytest.raises(ValueError) as raised:
        task_of(own).draw(0)
        task_of(own).held_out("validation")
    return str(raised.value)


def edited(row, **changes):
    """Rows of which one, counted from 1, is changed; None takes its column away."""
    table = rows(0, 20)
    table[row - 1] = {key: value for key, value in (table[row - 1] | changes).items() if value is not None}
    return table


CONFIG_MISTAKES = {
    "both train and teacher": ({"teacher": "b.jsonl"}, "train: is given beside teacher: or student:; give train alone"),
    "no data": ({"train": None}, "no data to learn from; give train:, or teacher: and student:"),
    "student without teacher": ({"train": None, "student": "b.jsonl"}, "student: is given without teacher:; add it"),
    "teacher without student": ({"train": None, "teacher": "b.jsonl"}, "teacher: is given without student:; add it"),
    "validation alone": ({"test": None}, "validation: is given without test:; add it, or remove both to hold rows of train out"),
    "nothing to hold out of": (APART | HELD_OUT, "validation: and test: are missing; add them, or give train alone"),
    "all held out": (HELD_OUT | {"n_test": 18}, "task.n_validation + task.n_test is 20, and train.jsonl has 20 answered rows"),
    "nothing left beside them": (HELD_OUT | {"n_teacher": 16}, "is 17, but train.jsonl holds 16 rows beside those held out"),
    "no answers to hold out": (HELD_OUT | {"answer": "lable"}, "task.answer: no row of train.jsonl has an answer in column 'lable'"),
    "metric of text": ({"metric": "rouge_l"}, "metric: rouge_l does not fit form: classes; name one of accuracy, macro_f1"),
    "metric of classes": ({"form": "text"}, "metric: accuracy does not fit form: text; name one of exact_match, rouge_l, slu_f1"),
    "classes of a text": (TEXT | {"classes": ["a", "b"]}, "classes: is given with form: text; remove it"),
    "one class given": ({"classes": ["a"]}, "classes: a are not two or more different names"),
    "a class given twice": ({"classes": ["a", "b", "a"]}, "classes: a, b, a are not two or more different names"),
    "open brace": ({"prompt": "{premise"}, "'{premise' has a brace too many or too few"),
    "single closing brace": ({"prompt": "{premise}}"}, "has a brace too many or too few"),
    "empty braces": ({"prompt": "{}"}, "has braces that hold no column's name alone; write {column}"),
    "format in braces": ({"prompt": "{n:03d}"}, "has braces that hold no column's name alone"),
    "prompt without column": ({"prompt": "what?"}, "'what?' holds no column, so every prompt would be the same"),
    "missing file": ({"test": "tset.jsonl"}, "task.test: no file or folder 'tset.jsonl'; correct the path"),
    "missing folder": ({"test": "../nowhere"}, "task.test: no file or folder '../nowhere'"),
    "no hub id": ({"test": "the test"}, "task.test: no file or folder 'the test', and no hub id org/name"),
    "wrong extension": ({"train": "notes.txt"}, "task.train: 'notes.txt' ends in none of .jsonl, .csv, .parquet; convert it"),
    "empty file": ({"train": "empty.jsonl"}, "task.train: empty.jsonl is empty; give it at least one row"),
    "CSV without rows": ({"validation": "header.csv"}, "task.validation: header.csv is empty"),
    "folder without data": ({"train": "none"}, "task.train: folder 'none' holds no .jsonl, .csv or .parquet file"),
    "no Parquet": ({"train": "broken.parquet"}, "broken.parquet: cannot be read ("),
    "not UTF-8": ({"train": "latin.jsonl"}, "latin.jsonl: line 1 is not UTF-8; save the file as UTF-8"),
    "too many values": ({"train": "wide.csv"}, "wide.csv: row 2: more values than columns; quote what holds a comma"),
    "too few rows": ({"n_teacher": 15, "n_student": 10}, "task.n_teacher + task.n_student is 25, but train.jsonl holds 20 rows"),
    "nothing left for B": ({"n_teacher": 20}, "task.n_teacher + task.n_student is 21, but train.jsonl holds 20 rows"),
    "too few in a file of A": (APART | {"n_teacher": 21}, "task.n_teacher: 21 is more than the 20 rows there are; lower it"),
    "too few held out": ({"n_validation": 9}, "task.n_validation: 9 is more than the 8 rows there are; lower it"),
    "class in no list": ({"classes": CLASSES[:3]}, "train.jsonl: row 4: 'unclear' is none of the classes"),
}  # fmt: skip
ROW_MISTAKES = {
    "unreadable line": ('{"premise": "a"', {}, "row 1: not JSON (Expecting"),
    "no object": ("[1, 2]", {}, "row 1: a list and no JSON object; write {column: value} a line"),
    "no such column": (edited(3, hypothesis=None), {}, "row 3: there is no column 'hypothesis', and there are premise, label"),
    "null in the prompt": (edited(3, hypothesis=[]), {}, "row 3: column 'hypothesis' is [], and a prompt is made of texts"),
    "truth value in the prompt": (edited(5, premise=True), {}, "row 5: column 'premise' is True, and a prompt is made of texts"),
    "no number in the prompt": (edited(5, n=float("nan")), {"prompt": "{n}"}, "row 5: column 'n' is nan"),
    "empty prompt": (edited(4, premise=" "), {"prompt": "{premise}\n"}, "row 4: the prompt is empty"),
    "no column of answers": (edited(2, label=None), {}, "row 2: there is no column 'label'"),
    "empty answer": (edited(2, label=" "), {}, "row 2: column 'label' is empty; give the answer (only rows of task.student"),
    "a list as class": (edited(2, label=["entails"]), {}, "row 2: the answer ['entails'] is no class's name"),
    "half a class": (edited(2, label=0.5), {}, "row 2: the answer 0.5 is no class's name; write a text or a whole number"),
    "class with a typo": (edited(7, label="neutrl"), {"classes": CLASSES}, "'neutrl' is none of the classes"),
    "number as text": (edited(6, summary=6), TEXT, "row 6: the answer is 6 and no text; write it in quotation marks"),
    "no slots": (edited(6), TEXT | {"metric": "slu_f1"}, "row 1: the answer 'number 0' is no JSON object of texts"),
    "id twice": (edited(9, uid=1003), {"id": "uid"}, "row 9: id 1003 occurs twice, first in "),
    "id not whole": (edited(9, uid=2.5), {"id": "uid"}, "row 9: 2.5 is no id, which is a whole number"),
    "id not a number": (edited(9, uid="x9"), {"id": "uid"}, "row 9: 'x9' is no id"),
    "no column of ids": (edited(9, uid=None), {"id": "uid"}, "row 9: there is no column 'uid'"),
}  # fmt: skip


@pytest.fixture
def bad_files(folder):
    for name, content in {
        "empty.jsonl": b"\n \n", "header.csv": b"premise,hypothesis,label\n", "notes.txt": b"x", "broken.parquet": b"PAR1",
        "latin.jsonl": b'{"premise": "\xe9"}\n', "wide.csv": b"premise,hypothesis,label\na,b,c\na,b,c,d\n",
    }.items():  # fmt: skip
        (folder / name).write_bytes(content)
    (folder / "none").mkdir()
    return folder


@pytest.mark.parametrize("name", CONFIG_MISTAKES)
def test_a_mistake_in_the_config_is_one_line(bad_files, name):
    changes, expected = CONFIG_MISTAKES[name]
    line = line_of(**changes)
    assert expected in line
    assert "\n" not in line


@pytest.mark.parametrize("part", ["train", "validation", "test"])
@pytest.mark.parametrize("name", ROW_MISTAKES)
def test_a_mistake_in_a_file_is_one_line_with_file_and_row(folder, name, part):
    bad, changes, expected = ROW_MISTAKES[name]
    if isinstance(bad, str):
        (folder / "bad.jsonl").write_text(bad + "\n")
    else:
        write(folder / "bad.jsonl", bad)
    if changes.get("metric") == "slu_f1":  # the other files must be right
        for file in ("train", "dev", "test"):
            write(folder / f"{file}.jsonl", [row | {"summary": "{}"} for row in rows(0, 3)])
    line = line_of(**changes | {part: "bad.jsonl"})
    assert line.startswith("bad.jsonl: row ")
    assert expected in line
    assert "\n" not in line


def test_one_class_only_is_refused(folder):
    for file in ("train", "dev", "test"):
        write(folder / f"{file}.jsonl", [row | {"label": "entails"} for row in rows(0, 9)])
    assert line_of() == (
        "task.answer: every row answers 'entails'; give rows of two classes or more, or correct the column's name"
    )


def test_a_close_class_is_named(folder):
    write(folder / "test.jsonl", edited(7, label="neutrl"))
    assert line_of(classes=CLASSES).endswith("did you mean neutral?")


def test_rouge_without_its_library_says_what_to_install(folder, monkeypatch):
    monkeypatch.setattr("raw2s.tasks.own.find_spec", lambda name: None)
    assert line_of(**TEXT | {"metric": "rouge_l"}) == "task.metric: rouge_l needs rouge-score; run pip install rouge-score"
