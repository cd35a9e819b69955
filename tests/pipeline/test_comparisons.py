"""Students against each other and against their best teachers, on made-up samples."""

import numpy as np
import pytest

from raw2s.evaluation.comparing import holm, p_of_difference, visible_difference
from raw2s.pipeline.comparisons import compare_students
from raw2s.results import Student


def student(stage, score, best="gpt2"):
    return Student(
        stage=stage, title=stage, form="classes", score=score, ci95=(None, None), per_seed=[score], method="naive", aux=False,
        confidence=True, pgr=None, pgr_ci95=(None, None), pgr_by_teacher={}, learned_from=[best] if best else [], best_teacher=best,
        over_best=None, over_best_ci95=(None, None),
    )  # fmt: skip


def samples(mean, seed):
    return np.random.default_rng(seed).normal(mean, 0.01, 1000)


def test_all_p_values_of_a_run_are_corrected_together():
    own, best = [samples(0.70, 1), samples(0.71, 2), samples(0.74, 3)], [samples(0.69, 4), None, samples(0.70, 5)]
    students = [student("student/0", 0.70), student("student/1", 0.71, best=None), student("student/2", 0.74)]
    found = compare_students(students, own, best)
    raw = [p_of_difference(own[0] - best[0]), p_of_difference(own[2] - best[2])]
    raw += [p_of_difference(own[i] - own[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    first, last, *pairs = holm(raw)
    assert [s.over_best_p for s in found.students] == [first, None, last]
    assert [(d.one, d.other, d.p, d.p_holm) for d in found.differences] == [
        (f"student/{i}", f"student/{j}", p, corrected)
        for (i, j), p, corrected in zip(((0, 1), (0, 2), (1, 2)), raw[2:], pairs, strict=True)
    ]
    assert found.differences[1].difference == pytest.approx(-0.04)
    assert found.differences[1].ci95[0] < -0.04 < found.differences[1].ci95[1]
    assert found.visible == max(visible_difference(own[0] - best[0]), visible_difference(own[2] - best[2]))


def test_of_one_student_without_a_tested_teacher_nothing_is_compared():
    found = compare_students([student("student/0", 0.7, best=None)], [samples(0.7, 1)], [None])
    assert (found.differences, found.visible, found.students[0].over_best_p) == ([], None, None)
