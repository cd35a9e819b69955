import functools
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raw2s.tasks import get_task
from raw2s.tasks.slurp import POOL, draw_slurp, held_out_slurp, load_slurp, normalised, pool_rows, pretraining_rows, train_rows

draw = functools.cache(draw_slurp)


def sentences(rows) -> set[str]:
    return {normalised(row["text"]) for row in rows}


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
    parts = draw(draw_from, 2000, 2000, 1)
    assert {name: len(rows) for name, rows in parts.items()} == {"teacher": 2000, "student": 2000}
    assert len(sentences(parts["teacher"]) | sentences(parts["student"])) == 4000
    for learned, judged in itertools.product(parts.values(), ("validation", "test")):
        assert not sentences(learned) & sentences(held_out_slurp(judged, None))


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
    first, second = draw("pool", 2000, 2000, 1), draw("pool", 2000, 2000, 2)
    for part in ("teacher", "student"):
        assert set(ids(first[part])) != set(ids(second[part]))
        assert set(ids(second[part])) <= set(ids(pool_rows()))
    assert draw_slurp("pool", 2000, 2000, 1) == first


@pytest.mark.parametrize(("part", "source"), [("validation", "devel"), ("test", "test")])
def test_held_out_utterances_stay_and_fewer_are_a_prefix_of_more(part, source):
    official, every = load_slurp(source), held_out_slurp(part, None)
    assert sorted(ids(every)) == sorted(ids(official))
    assert ids(every) != ids(official)  # shuffled, for the official order goes by scenario
    assert held_out_slurp(part, None) == every
    assert held_out_slurp(part, 70) == every[:70]


def test_more_than_there_is_is_refused():
    with pytest.raises(ValueError, match=r"task\.n_teacher.*4001.*4000"):
        draw_slurp("pool", 2000, 2001, 1)


@given(st.text())
def test_a_sentence_counts_as_the_same_whatever_its_case_and_marks(text):
    plain = normalised(text)
    assert normalised(plain) == plain
    assert normalised(f" {text.swapcase().swapcase()}!? ") == normalised(text.swapcase().swapcase())
    assert not set(plain) - set("abcdefghijklmnopqrstuvwxyz0123456789 ")


def test_scenarios_are_the_classes():
    task = get_task("slurp_scenario")
    assert len(task.classes) == 18
    assert list(task.classes) == sorted(set(task.classes))
    assert {row["scenario"] for row in load_slurp("test")} == set(task.classes)


@pytest.mark.parametrize("name", ["slurp_slots", "slurp_scenario"])
def test_the_right_answers_score_one_and_none_scores_zero(name):
    task, rows = get_task(name), held_out_slurp("test", 200)
    examples = task.examples(rows, "short")
    assert [(example["id"], example["prompt"]) for example in examples] == [(row["id"], row["text"] + "\n") for row in rows]
    gold = [example["gold"] for example in examples]
    right = task.utterance_counts(gold, [task.parse(example["target"]) for example in examples])
    wrong = task.utterance_counts(gold, [task.parse("{}") for _ in gold])
    assert len(right) == len(gold)
    assert task.score(right.mean(axis=0)) == 1
    assert task.score(wrong.mean(axis=0)) == 0
    if task.kind == "classification":
        assert {example["target"] for example in examples} <= set(task.classes)
