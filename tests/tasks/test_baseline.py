"""The best constant answer."""

import pytest

from raw2s.evaluation.metrics import ACCURACY, EXACT_MATCH
from raw2s.tasks import Task, task_of
from raw2s.tasks.baseline import CANDIDATES, trivial_baseline
from raw2s.tasks.slurp_slots import SlotsSection


def task(classes=(), metric=EXACT_MATCH):
    return Task(
        name="made", form="classes" if classes else "text", classes=classes, metric=metric, parse=str, nothing=None,
        draw=lambda seed: None, held_out=lambda part: [], credit="",
    )  # fmt: skip


def examples(answers):
    return [{"id": i, "prompt": "", "target": answer, "gold": answer} for i, answer in enumerate(answers)]


def test_the_best_answer_on_the_validation_set_is_scored_on_the_test_set():
    baseline = trivial_baseline(task(), examples("aabc"), examples("abbbb"))
    assert (baseline.answer, baseline.score) == ("a", pytest.approx(0.2))
    assert baseline.counts.tolist() == [[1], [0], [0], [0], [0]]


def test_every_class_is_tried_and_of_equals_the_first_wins():
    three = task(("x", "y", "z"), ACCURACY)
    assert trivial_baseline(three, examples("zyzy"), examples("z")).answer == "y"
    assert trivial_baseline(three, examples("zzzy"), examples("z")).score == 1


def test_only_the_frequent_texts_are_tried():
    rare = [str(i) for i in range(CANDIDATES)] * 2
    assert trivial_baseline(task(), examples(["last", *rare]), examples(["last"])).answer == "0"


def test_the_constant_slots_of_slurp():
    slots = task_of(SlotsSection(n_validation=300, n_test=None))  # all 2,033 say the same, in seconds
    baseline = trivial_baseline(slots, slots.held_out("validation"), slots.held_out("test"))
    assert slots.parse(baseline.answer) == [["date", "today"]]
    assert baseline.score == pytest.approx(0.131, abs=5e-4)
    assert baseline.counts.shape == (2974, 3)
