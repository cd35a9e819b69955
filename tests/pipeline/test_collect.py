"""Which teachers a student's PGR is over, on made-up test counts."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import sem

from raw2s.config import parse_config
from raw2s.evaluation import crossed_bootstrap, paired_bootstrap, performance_gap_recovered
from raw2s.evaluation.metrics import ACCURACY
from raw2s.pipeline.collect import _Collector

RIGHT = {"opt": 40, "gpt2": 60, "ceiling": 90, "student": 55}
"""Correct answers of 100."""


def a_test(name):
    return SimpleNamespace(name=f"test/{name}", labeler=SimpleNamespace(model=SimpleNamespace(name=name)))


def gap_of(weights):
    """What `_Collector` makes of a student that learned with these weights."""
    tests = {name: a_test(name) for name in RIGHT}
    planned = SimpleNamespace(test=tests["student"], before_preference=SimpleNamespace(weights=weights))
    plan = SimpleNamespace(
        teachers={name: tests[name] for name in ("opt", "gpt2")}, given={}, ceiling=tests["ceiling"], students=[planned]
    )
    config = parse_config(
        {
            "task": {"name": "slurp_scenario"},
            "teachers": [{"name": "opt", "model": "tiny-opt"}, {"name": "gpt2", "model": "tiny-gpt2"}],
            "student": {"model": "tiny-llama"},
            "methods": [{"method": "naive"}],
        }
    )
    done = {test.name: SimpleNamespace(artifact=SimpleNamespace(metrics={})) for test in tests.values()}
    collector = _Collector(config=config, plans=[plan], done=done)
    counts = {f"test/{name}": (np.arange(100) < right).astype(float)[:, None] for name, right in RIGHT.items()}
    collector.__dict__["counts"] = counts
    return collector.gap(planned, [tests["student"]])


def test_a_single_teachers_student_is_measured_by_its_own_teacher():
    found = gap_of({"opt": 1.0, "gpt2": 0.0})
    assert found["learned_from"] == ["opt"]
    assert found["pgr"] == pytest.approx((0.55 - 0.40) / (0.90 - 0.40)) == found["pgr_by_teacher"]["opt"]
    assert found["pgr_ci95_examples"] == pytest.approx(found["pgr_ci95"])  # of one seed
    assert found["pgr_by_teacher"]["gpt2"] < 0  # below the other teacher, which is told beside it
    assert (found["best_teacher"], found["over_best"]) == ("opt", pytest.approx(0.15))
    assert found["over_best_ci95"][0] > 0


@pytest.mark.parametrize("weights", [{"opt": 0.5, "gpt2": 0.5}, {"opt": 0.1, "gpt2": 0.9}, "devel"])
def test_a_student_of_several_is_measured_by_their_mean_and_against_the_best(weights):
    found = gap_of(weights)
    assert found["learned_from"] == ["opt", "gpt2"]
    assert found["pgr"] == pytest.approx(performance_gap_recovered(0.55, [0.40, 0.60], 0.90))
    assert found["pgr"] > 0 > found["over_best"]  # a mean gap recovered, and yet below the best teacher
    assert found["best_teacher"] == "gpt2"
    assert found["over_best_ci95"][1] < 0.05


def test_the_standard_error_is_over_the_seeds_and_none_of_one():
    right = [70, 40, 55]
    tests = [a_test(f"student@{seed}") for seed in range(3)]
    config = parse_config(
        {"teachers": [{"name": "opt", "model": "tiny-opt"}], "student": {"model": "tiny-llama"}, "seeds": [0, 1, 2]}
    )
    done = {test.name: SimpleNamespace(artifact=SimpleNamespace(metrics={})) for test in tests}
    collector = _Collector(config=config, plans=tests, done=done)
    collector.__dict__["task"] = SimpleNamespace(metric=ACCURACY, form="classes")
    counts = [(np.arange(100) < share).astype(float)[:, None] for share in right]
    collector.__dict__["counts"] = {test.name: own for test, own in zip(tests, counts, strict=True)}
    assert collector.scores(tests)["standard_error"] == pytest.approx(sem(np.divide(right, 100)))
    collector.__dict__["seeds_drawn"] = np.ones((config.evaluation.resamples, 1))
    assert collector.scores(tests[:1])["standard_error"] is None


def test_a_runs_students_answer_the_papers_claims_on_their_own_samples():
    config = parse_config({"teachers": [{"name": "opt", "model": "tiny-opt"}], "student": {"model": "tiny-llama"}})
    collector = _Collector(config=config, plans=[], done={})
    collector.__dict__["task"] = SimpleNamespace(form="classes")
    scores = {"bayesian": 0.70, "raven": 0.99, "naive": 0.75}
    rng = np.random.default_rng(0)
    collector.__dict__["resampled"] = [
        SimpleNamespace(
            student=SimpleNamespace(
                method=method, label=method, aux=False, confidence=True, score=score, learned_from=["opt"], weighting="equal"
            ),
            samples=rng.normal(score, 0.01, 999),
        )
        for method, score in scores.items()
    ]
    (claim,) = collector.claims()
    assert (claim.statement, claim.verdict) == ("Bayesian multi-weak beats naive multi-weak", "the reverse")
    assert (claim.effect, claim.paper) == (pytest.approx(-0.05), pytest.approx(0.822 - 0.818))


def test_over_several_seeds_intervals_hold_the_seeds_too():
    right = {1: 70, 2: 40, 3: 55}
    plans = [SimpleNamespace(test=a_test(f"student@{seed}")) for seed in right]
    config = parse_config(
        {"teachers": [{"name": "opt", "model": "tiny-opt"}], "student": {"model": "tiny-llama"}, "seeds": list(right)}
    )
    collector = _Collector(config=config, plans=plans, done={})
    counts = [(np.arange(100) < share).astype(float)[:, None] for share in right.values()]
    collector.__dict__["task"] = SimpleNamespace(metric=ACCURACY)
    collector.__dict__["counts"] = {plan.test.name: own for plan, own in zip(plans, counts, strict=True)}
    expected = crossed_bootstrap({"student": counts}, ACCURACY.score, resamples=config.evaluation.resamples)["student"]
    found = collector.sampled([plan.test for plan in plans])
    np.testing.assert_allclose(found, expected)
    fixed = paired_bootstrap({"student": counts[0]}, ACCURACY.score)["student"]
    assert found.std() > 1.5 * fixed.std()
    of_examples = collector.sampled_examples([plan.test for plan in plans])
    assert of_examples.mean() == pytest.approx(found.mean(), abs=0.02)
    assert found.std() > 1.5 * of_examples.std()
