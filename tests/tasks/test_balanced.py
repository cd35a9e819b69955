"""SciQ and Cosmos QA: openai's text, sampling and order, on small made files and against their shipped weak labels."""

import gzip
import json
import os
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raw2s.tasks import draw_halves, task_of
from raw2s.tasks.cosmosqa import NONE_OF_THEM, CosmosqaSection
from raw2s.tasks.sciq import SciqSection

SHARED = Path(os.environ.get("RAW2S_SHARED", Path(__file__).parents[3] / "shared")) / "data"
FULL = {"n_teacher": None, "n_student": None, "n_validation": None, "n_test": None}


def sciq_row(i):
    return {
        "question": f"Which is number {i}?", "distractor3": f"c{i}", "distractor1": f"a{i}", "distractor2": f"b{i}",
        "correct_answer": f"right{i}", "support": "",
    }  # fmt: skip


def cosmos_row(i):
    answers = {f"answer{k}": f"{'yes' if k == i % 4 else 'no'} {k} {i}" for k in range(4)}
    if i % 5 == 0:
        answers["answer2"] = NONE_OF_THEM
    return {"id": f"x{i}", "context": f"It was day {i}.", "question": "What then?", **answers, "label": i % 4}


def write(folder, **parts):
    folder.mkdir(exist_ok=True)
    for name, rows in parts.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


@pytest.fixture(scope="module")
def sciq(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sciq")
    return write(folder, **{part: [sciq_row(i) for i in range(n)] for part, n in {"train": 41, "valid": 10, "test": 12}.items()})


@pytest.fixture(scope="module")
def cosmos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cosmos")
    return write(folder, train=[cosmos_row(i) for i in range(40)], valid=[cosmos_row(i) for i in range(100, 130)])


def openai_sciq(rows, seed):
    """`load_dataset` and the split of openai/weak-to-strong, over rows in memory."""
    from datasets import Dataset

    rng = Random(seed)
    formatted = []
    for row in rows:
        label = int(rng.random() < 0.5)
        answer = row["correct_answer"] if label else rng.choice([row["distractor1"], row["distractor2"], row["distractor3"]])
        formatted.append({"txt": f"Q: {row['question']} A: {answer}", "hard_label": label})
    halves = Dataset.from_list(formatted).shuffle(seed=seed).train_test_split(test_size=0.5, seed=seed)
    return halves["train"].to_list(), halves["test"].to_list()


def as_openai(examples):
    return [{"txt": example["prompt"], "hard_label": ("false", "true").index(example["target"])} for example in examples]


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_sciq_is_sampled_and_ordered_as_by_openai(sciq, seed):
    halves = draw_halves(SciqSection(data=sciq, **FULL), seed)
    teacher, student = openai_sciq([sciq_row(i) for i in range(41)], seed)
    assert as_openai(halves.teacher) == teacher
    assert as_openai(halves.student) == student


@pytest.mark.parametrize("seed", [0, 1])
def test_sciq_is_row_by_row_what_the_real_weak_labels_are_of(seed):
    files = sorted((SHARED / "sciq_weak_labels").glob(f"seed{seed}_*.jsonl.gz"))
    if not files or not (SHARED / "sciq").is_dir():
        pytest.skip("the shared data folder is not here")
    student = draw_halves(SciqSection(data=str(SHARED / "sciq"), **FULL), seed).student
    for file in files:
        rows = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
        assert len(rows) == 5840
        assert as_openai(student) == [{"txt": row["txt"], "hard_label": row["gt_label"]} for row in rows]


def test_fewer_are_a_prefix_of_the_halves(sciq):
    few, every = (draw_halves(SciqSection(data=sciq, **FULL | sizes), 3) for sizes in ({"n_teacher": 6, "n_student": 7}, {}))
    assert few.teacher == every.teacher[:6]
    assert few.student == every.student[:7]
    task = task_of(SciqSection(data=sciq, **FULL | {"n_test": 5}))
    assert task.held_out("test") == task_of(SciqSection(data=sciq, **FULL)).held_out("test")[:5]


@given(st.integers(0, 2**31), st.integers(1, 20), st.integers(1, 20), st.sampled_from(["sampled", "exact"]))
def test_a_and_b_share_no_question_and_an_id_is_a_question_with_its_answer(sciq, seed, n_teacher, n_student, balance):
    section = SciqSection(data=sciq, **FULL | {"n_teacher": n_teacher, "n_student": n_student, "balance": balance})
    halves = draw_halves(section, seed)
    assert (len(halves.teacher), len(halves.student)) == (n_teacher, n_student)
    assert not {e["id"] // 4 for e in halves.teacher} & {e["id"] // 4 for e in halves.student}
    for example in [*halves.teacher, *halves.student]:
        row, answer = divmod(example["id"], 4)
        texts = [f"{text}{row}" for text in ("right", "a", "b", "c")]
        assert example["prompt"] == f"Q: Which is number {row}? A: {texts[answer]}"
        assert example["target"] == example["gold"] == ("true" if answer == 0 else "false")
    if balance == "exact":
        for half in (halves.teacher, halves.student):
            assert sum(example["target"] == "true" for example in half) == len(half) // 2


@pytest.mark.parametrize("balance", ["sampled", "exact"])
def test_a_split_seed_fixes_halves_and_answers_for_every_seed_of_a_run(sciq, balance):
    moving, fixed = (SciqSection(data=sciq, balance=balance, split_seed=seed, **FULL) for seed in (None, 3))
    assert draw_halves(fixed, 1) == draw_halves(fixed, 2) == draw_halves(moving, 3)
    assert draw_halves(moving, 1) != draw_halves(moving, 2)


def test_exact_balance_holds_for_the_test_set_too_and_the_seed_moves_the_answers(sciq):
    section = SciqSection(data=sciq, **FULL | {"balance": "exact"})
    assert [example["target"] for example in task_of(section).held_out("test")].count("true") == 6
    assert [e["id"] for e in draw_halves(section, 1).student] != [e["id"] for e in draw_halves(section, 2).student]


def test_cosmosqa_is_formatted_as_by_openai(cosmos):
    halves = draw_halves(CosmosqaSection(data=cosmos, n_validation=10, n_teacher=None, n_student=None), 5)
    rows = [cosmos_row(i) for i in range(40)]
    rng, shown = Random(5), []
    for row in rows:
        true = row[f"answer{row['label']}"]
        label = 0 if NONE_OF_THEM in true else int(rng.random() < 0.5)
        answer = true if label else rng.choice([row[f"answer{k}"] for k in range(4) if row[f"answer{k}"] != true])
        shown.append((f"Context: {row['context']}\nQuestion: {row['question']}\nAnswer: {answer}", "true" if label else "false"))
    assert sorted((e["prompt"], e["target"]) for e in [*halves.teacher, *halves.student]) == sorted(shown)
    assert any(row[f"answer{row['label']}"] == NONE_OF_THEM for row in rows)


def test_cosmosqa_tests_on_the_first_of_the_official_validation_set_and_validates_on_the_last(cosmos):
    task = task_of(CosmosqaSection(data=cosmos, n_validation=10))
    days = [[int(e["prompt"].split(".")[0].split()[-1]) for e in task.held_out(part)] for part in ("test", "validation")]
    assert days == [list(range(100, 120)), list(range(120, 130))]


def test_a_question_whose_right_answer_cannot_be_shown_is_never_true_however_balanced(cosmos):
    halves = draw_halves(CosmosqaSection(data=cosmos, n_validation=10, n_teacher=None, n_student=None, balance="exact"), 0)
    for half in (halves.teacher, halves.student):
        assert sum(example["target"] == "true" for example in half) == len(half) // 2
        assert not any(NONE_OF_THEM in example["prompt"] and example["target"] == "true" for example in half)


@pytest.mark.parametrize(
    ("section", "part", "row", "line"),
    [
        (SciqSection, "train", {"question": None}, "train.jsonl: row 2: column 'question' is None and no text; correct the row"),
        (SciqSection, "valid", {"distractor2": 3}, "valid.jsonl: row 2: column 'distractor2' is 3 and no text"),
        (CosmosqaSection, "train", {"label": -1}, "train.jsonl: row 2: label is -1; give the number of the right answer, 0 to 3"),
        (CosmosqaSection, "valid", {f"answer{k}": "same" for k in range(4)}, "valid.jsonl: row 2: all answers are the same"),
    ],
)
def test_a_mistake_in_a_row_is_named(tmp_path, section, part, row, line):
    make = sciq_row if section is SciqSection else cosmos_row
    parts = {name: [make(i) for i in range(4)] for name in ("train", "valid", "test")}
    parts[part][1] |= row
    with pytest.raises(ValueError) as raised:
        task_of(section(data=write(tmp_path / "data", **parts), n_validation=1))
    assert line in str(raised.value)


def test_what_is_not_there_is_named(sciq, cosmos, tmp_path):
    for section, line in [
        (SciqSection(data=str(tmp_path)), f"task.data: folder '{tmp_path}' holds no train.jsonl"),
        (SciqSection(data=str(tmp_path / "gone")), "task.data: no file or folder"),
        (CosmosqaSection(data=cosmos, n_validation=30), "task.n_validation: 30 leaves none of 30 to test on; lower it"),
    ]:
        with pytest.raises(ValueError) as raised:
            task_of(section)
        assert line in str(raised.value)
    with pytest.raises(ValueError, match=r"task\.n_student: 5000 is more than the 21 examples of its half"):
        draw_halves(SciqSection(data=sciq, n_teacher=5), 0)
    with pytest.raises(ValueError, match=r"task\.n_test: 1000 is more than the 12"):
        task_of(SciqSection(data=sciq)).held_out("test")
