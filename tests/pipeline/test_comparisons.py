"""Students against each other and against their best teachers, on made-up samples."""

import numpy as np
import pytest

from raw2s.evaluation import crossed_bootstrap, sign_test
from raw2s.evaluation.comparing import holm, p_of_difference, visible_difference
from raw2s.pipeline.comparisons import Resampled, compare_students
from raw2s.results import Student


def student(stage, score, best="gpt2"):
    return Student(
        stage=stage, title=stage, form="classes", score=score, ci95=(None, None), per_seed=[score], method="naive", aux=False,
        confidence=True, pgr=None, pgr_ci95=(None, None), pgr_by_teacher={}, learned_from=[best] if best else [], best_teacher=best,
        over_best=None, over_best_ci95=(None, None),
    )  # fmt: skip


def samples(mean, seed):
    return np.random.default_rng(seed).normal(mean, 0.01, 1000)


def test_p_values_are_corrected_for_the_table_they_stand_in():
    own, best = [samples(0.70, 1), samples(0.71, 2), samples(0.74, 3)], [samples(0.69, 4), None, samples(0.70, 5)]
    students = [student("student/0", 0.70), student("student/1", 0.71, best=None), student("student/2", 0.74)]
    right = [np.arange(100) < share for share in (70, 71, 95)]
    found = compare_students(
        [
            Resampled(student=s, samples=o, per_example=r.astype(float), best=b)
            for s, o, r, b in zip(students, own, right, best, strict=True)
        ]
    )
    raw = [p_of_difference(own[i] - own[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    first, last = holm([p_of_difference(own[0] - best[0]), p_of_difference(own[2] - best[2])])
    assert [s.over_best_p for s in found.students] == [first, None, last]
    assert [(d.one, d.other, d.p, d.p_holm) for d in found.differences] == [
        (f"student/{i}", f"student/{j}", p, corrected)
        for (i, j), p, corrected in zip(((0, 1), (0, 2), (1, 2)), raw, holm(raw), strict=True)
    ]
    assert found.differences[1].difference == pytest.approx(-0.04)
    assert found.differences[1].ci95[0] < -0.04 < found.differences[1].ci95[1]
    assert found.visible == max(visible_difference(own[0] - best[0]), visible_difference(own[2] - best[2]))
    assert found.visible_between == max(visible_difference(own[i] - own[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    signs = [sign_test(right[i], right[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert [d.sign_p for d in found.differences] == signs == pytest.approx([1.0, 2**-24, 2**-23])
    assert [d.sign_p_holm for d in found.differences] == pytest.approx([1.0, 3 * 2**-24, 2 * 2**-23])


def test_of_one_student_without_a_tested_teacher_nothing_is_compared():
    alone = Resampled(student=student("student/0", 0.7, best=None), samples=samples(0.7, 1), per_example=np.ones(3), best=None)
    found = compare_students([alone])
    assert (found.differences, found.students[0].over_best_p) == ([], None)
    assert (found.visible, found.visible_between) == (None, None)


def test_a_difference_between_students_of_the_size_that_three_seeds_can_see_is_found_in_four_of_five():
    runs, seeds, examples, rng = 200, 3, 300, np.random.default_rng(2)
    said = found = 0.05
    for _ in range(2):  # first what such runs can see, then runs with a true difference of that size
        mean = np.array([0.6 + said / 2, 0.6 - said / 2])[:, None, None]
        # Examples differ in difficulty, seeds in luck: correctness is the same over the seeds for most examples.
        difficulty = rng.beta(0.5 * mean, 0.5 * (1 - mean), (runs, 2, 1, examples))
        right = (rng.random((runs, 2, seeds, examples)) < difficulty + rng.normal(0, 0.01, (runs, 2, seeds, 1))).astype(float)
        inputs = {(run, s): list(right[run, s]) for run in range(runs) for s in (0, 1)}
        sampled = crossed_bootstrap(inputs, lambda share: share, resamples=400)
        compared = [
            compare_students(
                [
                    Resampled(
                        student=student(f"student/{s}", right[run, s].mean(), best=None),
                        samples=sampled[run, s],
                        per_example=right[run, s].mean(axis=0),
                        best=None,
                    )
                    for s in (0, 1)
                ]
            )
            for run in range(runs)
        ]
        said = np.mean([own.visible_between for own in compared])
        found = np.mean([own.differences[0].p < 0.05 for own in compared])
    assert found == pytest.approx(0.8, abs=0.08)
