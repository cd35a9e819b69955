"""Agreement and the choice of examples, on made-up answers."""

import numpy as np
import pytest

from raw2s.pipeline.answered import EXAMPLES_SHOWN, agreements, as_answered, choose_examples
from raw2s.results import Ceiling, Results, Student, Teacher

GOLD = "aaaaaaaa"
SAID = {"teacher/x": "aabbaaab", "teacher/y": "aabcabcb", "ceiling": "aaaaaaaa", "student/0": "aaaddcaa", "student/1": "bbbbbbbb"}
BASE = {"form": "classes", "ci95": (0.0, 1.0)}


def answers_of(said, gold=GOLD):
    return as_answered([{"output": own, "predicted": own, "gold": true} for own, true in zip(said, gold, strict=True)])


def results_of(students=("student/0", "student/1"), teachers=("x", "y")):
    scores = {stage: float(np.mean([a == b for a, b in zip(said, GOLD, strict=True)])) for stage, said in SAID.items()}
    of = {stage: {**BASE, "stage": stage, "title": stage, "score": score, "per_seed": [score]} for stage, score in scores.items()}
    gap = {"pgr": None, "pgr_ci95": (None, None), "pgr_by_teacher": {}, "learned_from": ["x", "y"], "over_best": 0.1}
    student = {"method": "naive", "aux": False, "confidence": True, "best_teacher": "x", "over_best_ci95": (0, 1), **gap}
    return Results(
        run="r", task="t", form="classes", metric="accuracy", metric_title="accuracy", credit="c", seeds=[1], test_examples=8,
        teachers=[Teacher(name=name, **of[f"teacher/{name}"]) for name in teachers], ceiling=Ceiling(name="m", **of["ceiling"]),
        baseline=None, students=[Student(**of[stage], **student) for stage in students], environment={}, stages=[],
    )  # fmt: skip


ANSWERS = {stage: answers_of(said) for stage, said in SAID.items()}
TESTED = [{"prompt": f" prompt {u} ", "target": GOLD[u]} for u in range(8)]


def test_agreement_is_the_share_of_equal_answers_and_of_errors_of_both():
    other = {stage: answers_of("bbbbbbbb") for stage in SAID}
    found = {(own.stage, own.teacher): own for own in agreements([ANSWERS, other], ["teacher/x", "teacher/y"])}
    assert len(found) == len(SAID) * 2
    x, y = found["teacher/x", "teacher/y"], found["teacher/y", "teacher/x"]
    assert (x.same, x.both_wrong) == (y.same, y.both_wrong) == ((5 / 8 + 1) / 2, (3 / 8 + 1) / 2)
    own = found["teacher/x", "teacher/x"]
    assert (own.same, own.both_wrong) == (1.0, (3 / 8 + 1) / 2)


def test_items_of_a_list_in_any_order_are_one_answer():
    one, other = [["date", "today"], ["time", "9"]], [["time", "9"], ["date", "today"]]
    answered = as_answered([{"output": "", "predicted": own, "gold": one} for own in (one, other, one[:1], [])])
    assert answered.right.tolist() == [True, True, False, False]


def test_examples_are_chosen_by_rule_of_the_best_student_and_counted_on_the_whole_test_set():
    groups = choose_examples(ANSWERS, TESTED, results_of())
    differ, right, wrong = groups
    assert "x" in right.title and "right where" in right.title and "wrong where" in wrong.title
    chosen = {}
    for group in groups:
        chosen[group.title] = [int(own.prompt.split()[1]) for own in group.examples]
        assert len(group.examples) == min(group.count, EXAMPLES_SHOWN)
        assert all([a.stage for a in own.answers] == ["teacher/x", "teacher/y", "ceiling", "student/0"] for own in group.examples)
    assert (differ.count, right.count, wrong.count) == (2, 2, 2)
    assert list(chosen.values()) == [[3, 5], [2, 7], [4, 5]]
    assert [a.right for a in right.examples[0].answers] == [False, False, True, True]


@pytest.mark.parametrize(
    ("students", "teachers", "count"),
    [((), ("x", "y"), 1), ((), ("x",), 0), (("student/1",), (), 0), (("student/0",), ("x",), 3)],
)
def test_a_rule_without_its_models_is_left_out(students, teachers, count):
    assert len(choose_examples(ANSWERS, TESTED, results_of(students, teachers))) == count
