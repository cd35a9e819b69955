"""Students by the number of teachers that they learned from, on made-up scores and samples."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from faked_runs import fake_models, run_here
from hypothesis import given
from hypothesis import strategies as st

from raw2s.config import load_config, parse_config
from raw2s.decoding.bridge import words
from raw2s.labeling.cross_scores import cross_score
from raw2s.labeling.units import Answered
from raw2s.pipeline.claims import judge
from raw2s.pipeline.contrasts import contrasts
from raw2s.pipeline.more_teachers import more_teachers, some_teachers
from raw2s.pipeline.plan import plan_stages
from raw2s.report.costs import costs_of
from raw2s.report.paper_tables import places
from raw2s.results import Student

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["a", "b", "c", "d", "e"]


def student(teachers, score=0.5, *, method="bayesian", weighting="equal", pgr=0.1, stage=""):
    return Student(
        stage=stage, title=method.partition(":")[0], form="text", score=score, ci95=(None, None), per_seed=[score], method=method,
        aux=False, confidence=True, pgr=pgr, pgr_ci95=(None, None), pgr_by_teacher={}, learned_from=list(teachers),
        weighting=weighting, best_teacher=None, over_best=None, over_best_ci95=(None, None),
    )  # fmt: skip


CYCLES = [student(NAMES[i] + NAMES[(i + 1) % 5]) for i in range(5)]
GRID = [*map(student, NAMES), *CYCLES, student("abcde"), student("abcde", weighting="devel"), student("abcde", method="naive")]


def test_each_number_of_teachers_stands_against_the_next_smaller_one_and_the_most_against_the_fewest():
    two, five, whole = more_teachers(GRID)
    assert two.statement == "2 teachers beat 1 (bayesian with soft labels)"
    np.testing.assert_allclose(two.weights, [-0.2] * 5 + [0.2] * 5 + [0, 0, 0])
    assert five.statement == "5 teachers beat 2 (bayesian with soft labels)"
    np.testing.assert_allclose(five.weights, [0] * 5 + [-0.2] * 5 + [1, 0, 0])
    assert whole.statement == "5 teachers beat 1 (bayesian with soft labels)"
    np.testing.assert_allclose(whole.weights, two.weights + five.weights)


def test_where_more_teachers_help_the_claim_is_borne_out_and_one_number_asks_nothing():
    scores = [0.40] * 5 + [0.44] * 5 + [0.42, 0.5, 0.5]
    samples = np.random.default_rng(0).normal(np.array(scores)[:, None], 0.002, (13, 1000))
    claims = judge(more_teachers(GRID), scores, list(samples))
    assert [claim.verdict for claim in claims] == ["as the paper", "the reverse", "as the paper"]
    assert [claim.effect for claim in claims] == pytest.approx([0.04, -0.02, 0.02])
    assert more_teachers(CYCLES) == []
    assert some_teachers(CYCLES, list(samples[:5])) == []


@given(st.lists(st.tuples(st.sets(st.sampled_from(NAMES), min_size=1), st.sampled_from(["naive", "bayesian", "single:a"]))))
def test_every_effect_is_a_mean_against_a_mean(drawn):
    students = [student(sorted(teachers), method=method) for teachers, method in drawn]
    for contrast in more_teachers(students):
        assert contrast.weights.sum() == pytest.approx(0)
        assert abs(contrast.weights).sum() == pytest.approx(2)


def test_means_are_over_students_of_a_number_and_learned_weights_stand_apart():
    students = [
        student("a", 0.4, pgr=0.1, stage="s/0"),
        student("b", 0.6, pgr=0.3, stage="s/1"),
        student("ab", 0.7, pgr=None, stage="s/2"),
        student("ab", 0.8, weighting="devel", stage="s/3"),
        student("a", 0.9, method="single:a", stage="s/4"),
    ]
    samples = np.array([[s.score - 0.1, s.score, s.score + 0.1] for s in students])
    found = some_teachers(students, list(samples))
    assert [(s.weighting, s.teachers, s.stages) for s in found] == [
        ("equal", 1, ["s/0", "s/1"]),
        ("equal", 2, ["s/2"]),
        ("devel", 2, ["s/3"]),
    ]
    assert [s.score for s in found] == pytest.approx([0.5, 0.7, 0.8])
    assert [s.pgr for s in found] == [pytest.approx(0.2), None, 0.1]
    assert found[0].ci95 == pytest.approx((0.405, 0.595))
    assert found[2].label == "bayesian with soft labels, weights fitted on devel"


def test_the_papers_multi_weak_students_have_all_teachers():
    assert [place is not None for place in places(GRID)] == [False] * 10 + [True, False, True]
    (claim,) = contrasts(GRID, "text")
    np.testing.assert_array_equal(claim.weights, [0] * 10 + [1, 0, -1])


def test_the_grid_has_every_teacher_equally_often_at_each_number():
    config = load_config(ROOT / "configs" / "grid_teachers.yaml")
    plan = plan_stages(config, config.seeds[0])
    assert len({student.stage.key for student in plan.students}) == len(config.methods) < 20
    equal = [s.stage.weights for s in plan.students if s.name == "bayesian" and s.weighting == "equal"]
    for number in (1, 2, 3, 5):
        of_number = [weights for weights in equal if sum(weight > 0 for weight in weights.values()) == number]
        counts = np.sum([[weight > 0 for weight in weights.values()] for weights in of_number], axis=0)
        assert len(set(counts)) == 1, number
    assert [s.weighting for s in plan.students[-4:]] == ["equal", "devel", "equal", "learned"]


def test_weights_that_differ_are_given():
    tree = {"teachers": [{"name": n, "model": "tiny-opt"} for n in "ab"], "student": {"model": "tiny-opt"}}
    weights = [[1, 1], [2, 1], [1, 0]]
    config = parse_config(tree | {"methods": [{"method": "naive", "weights": {"loss": own}} for own in weights]})
    assert [student.weighting for student in plan_stages(config, 1).students] == ["equal", "given", "equal"]


def test_a_run_with_several_numbers_of_teachers_answers_and_lists_them(tmp_path, monkeypatch):
    fake_models(monkeypatch)
    methods = [{"method": "bayesian", "weights": {"loss": weights}} for weights in ([1, 0], [0, 1], [1, 1])]
    results, _, _ = run_here(tmp_path, methods=methods)
    assert [(s.teachers, s.stages) for s in results.by_teachers] == [
        (1, ["student/0-bayesian", "student/1-bayesian"]),
        (2, ["student/2-bayesian"]),
    ]
    (claim,) = results.claims
    assert claim.statement == "2 teachers beat 1 (Bayesian multi-weak (EDL) with soft labels)"


def test_a_teacher_added_to_a_finished_run_generates_alone_and_its_cost_is_shown(tmp_path, monkeypatch):
    generated, scored = Counter[str](), Counter[str]()

    def own_text(pool, task, prompts, **_):
        generated[pool.name] += len(prompts)
        return Answered(pa.Table.from_pylist([{"id": i, "texts": [f"{pool.name} {i}"]} for i in prompts]), {}, 1.0)

    def scores(make, units, pool, **_):
        scored[pool.name] += sum(len(texts) for unit in units for texts in unit["candidates"])
        rows = [
            {"id": i, "words": [[-1.0] * (len(words(text)) + 1) for text in texts], "tokens": [3] * len(texts)}
            for unit in units
            for i, texts in zip(unit["ids"], unit["candidates"], strict=True)
        ]
        return Answered(pa.Table.from_pylist(rows), {}, 1.0)

    fake_models(monkeypatch)
    monkeypatch.setattr("raw2s.labeling.answers.answers_of", own_text)
    monkeypatch.setattr("raw2s.labeling.cross_scores.cross_score", cross_score)
    monkeypatch.setattr("raw2s.labeling.cross_scores.run_pass", scores)
    teachers = [
        {"name": name, "model": "tiny-opt", "learning_rate": rate}
        for name, rate in zip("abcd", (1e-3, 2e-3, 3e-3, 4e-3), strict=True)
    ]
    methods = [{"method": "bayesian"}]
    _, _, before = run_here(tmp_path, teachers=teachers[:3], methods=methods)
    prompts = len(before["split"].folder.joinpath("student.jsonl").read_text().splitlines())
    assert scored == dict.fromkeys("abc", 3 * prompts)
    generated.clear()
    scored.clear()
    results, _, after = run_here(tmp_path, teachers=teachers, methods=methods)
    assert generated.keys() == {"d", "student"}
    assert scored == {"a": prompts, "b": prompts, "c": prompts, "d": 4 * prompts}, "the others score what d adds, and d all"
    assert after["label"].manifest["lent_by"] == [before["label"].manifest["key"]]
    costs = {cost.kind: (cost.made, cost.cached) for cost in costs_of(results)}
    assert costs["teacher"] == costs["beams"] == (1, 3)
    assert costs["label"] == costs["student"] == (1, 0)
    assert costs["ceiling"] == (0, 1)
