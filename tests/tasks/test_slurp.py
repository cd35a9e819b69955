import functools
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raw2s.tasks import draw_halves, task_of
from raw2s.tasks.slurp import POOL, load_slurp, normalized, pool_rows, pretraining_rows, train_rows
from raw2s.tasks.slurp_scenario import ScenarioSection
from raw2s.tasks.slurp_slots import SlotsSection

EVERY = {"n_validation": None, "n_test": None}


@functools.cache
def held_out(part):
    """All utterances of a part."""
    return task_of(SlotsSection(**EVERY)).held_out(part)


@functools.cache
def halves(draw_from, n_teacher, n_student, seed):
    parts = draw_halves(SlotsSection(draw_from=draw_from, n_teacher=n_teacher, n_student=n_student), seed)
    return {"teacher": parts.teacher, "student": parts.student}


def sentences(rows) -> set[str]:
    """Of rows, or of examples, whose short prompt is the text."""
    return {normalized(row["text"] if "text" in row else row["prompt"]) for row in rows}


def ids(rows) -> list[int]:
    return [row["id"] for row in rows]


@pytest.mark.parametrize(("source", "size"), [("train", 11_514), ("devel", 2_033), ("test", 2_974), ("nlu_eval_extra", 3_796)])
def test_the_official_sizes(source, size):
    rows = load_slurp(source)
    assert len(rows) == size
    assert len(set(ids(rows))) == size
    assert len({row["scenario"] for row in rows}) == 18


@pytest.mark.parametrize("draw_from", ["pool", "train"])
def test_no_sentence_of_a_or_b_is_anywhere_else(draw_from):
    parts = halves(draw_from, 2000, 2000, 1)
    assert {name: len(rows) for name, rows in parts.items()} == {"teacher": 2000, "student": 2000}
    assert len(sentences(parts["teacher"]) | sentences(parts["student"])) == 4000
    for learned, judged in itertools.product(parts.values(), ("validation", "test")):
        assert not sentences(learned) & sentences(held_out(judged))


def test_what_the_built_in_models_read_is_in_no_part_of_a_run():
    read = sentences(pretraining_rows())
    assert len(read) > POOL
    for rows in (pool_rows(), load_slurp("devel"), load_slurp("test")):
        assert not read & sentences(rows)


def test_the_pool_is_part_of_train_and_stays():
    pool = pool_rows()
    assert len(pool) == POOL
    assert set(ids(pool)) <= set(ids(train_rows())) <= set(ids(load_slurp("train")))
    assert ids(pool) == ids(pool_rows())


def test_a_seed_moves_a_and_b_within_the_pool():
    first, second = halves("pool", 2000, 2000, 1), halves("pool", 2000, 2000, 2)
    for part in ("teacher", "student"):
        assert set(ids(first[part])) != set(ids(second[part]))
        assert set(ids(second[part])) <= set(ids(pool_rows()))
    assert halves.__wrapped__("pool", 2000, 2000, 1) == first


def test_a_split_seed_fixes_a_and_b_for_every_seed_of_a_run():
    sizes = {"n_teacher": 20, "n_student": 20}
    fixed = SlotsSection(split_seed=2, **sizes)
    assert draw_halves(fixed, 1) == draw_halves(fixed, 7) == draw_halves(SlotsSection(**sizes), 2)
    assert draw_halves(fixed, 1) != draw_halves(SlotsSection(**sizes), 1)


@pytest.mark.parametrize(("part", "source"), [("validation", "devel"), ("test", "test")])
def test_held_out_utterances_stay_and_fewer_are_a_prefix_of_more(part, source):
    official, every = load_slurp(source), held_out(part)
    assert sorted(ids(every)) == sorted(ids(official))
    assert ids(every) != ids(official)  # shuffled, for the official order goes by scenario
    assert held_out.__wrapped__(part) == every
    assert task_of(SlotsSection(**EVERY | {f"n_{part}": 70})).held_out(part) == every[:70]


def test_more_than_there_is_is_refused():
    with pytest.raises(ValueError, match=r"task\.n_teacher.*4001.*4000"):
        halves("pool", 2000, 2001, 1)
    with pytest.raises(ValueError, match=r"task\.n_test: 2975 is more than the 2,974"):
        task_of(SlotsSection(n_test=2975)).held_out("test")


@given(st.text())
def test_a_sentence_counts_as_the_same_whatever_its_case_and_marks(text):
    plain = normalized(text)
    assert normalized(plain) == plain
    assert normalized(f" {text.swapcase().swapcase()}!? ") == normalized(text.swapcase().swapcase())
    assert not set(plain) - set("abcdefghijklmnopqrstuvwxyz0123456789 ")


def test_scenarios_are_the_classes():
    task = task_of(ScenarioSection())
    assert len(task.classes) == 18
    assert list(task.classes) == sorted(set(task.classes))
    assert {row["scenario"] for row in load_slurp("test")} == set(task.classes)


@pytest.mark.parametrize("section", [SlotsSection(n_test=200), ScenarioSection(n_test=200)], ids=lambda section: section.name)
def test_the_right_answers_score_one_and_none_scores_zero(section):
    task = task_of(section)
    examples = task.held_out("test")
    text_of = {row["id"]: row["text"] for row in load_slurp("test")}
    assert [example["prompt"] for example in examples] == [text_of[example["id"]] + "\n" for example in examples]
    gold = [example["gold"] for example in examples]
    right = task.metric.counts(gold, [task.parse(example["target"]) for example in examples])
    wrong = task.metric.counts(gold, [task.parse("{}") for _ in gold])
    assert len(right) == len(gold) == 200
    assert task.metric.score(right.mean(axis=0)) == 1
    assert task.metric.score(wrong.mean(axis=0)) == 0
    if task.form == "classes":
        assert {example["target"] for example in examples} <= set(task.classes)
