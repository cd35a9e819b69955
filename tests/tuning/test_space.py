"""Distributions in a config's tree: what is found and refused, what a point gives, and that the simplex is drawn uniformly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, kstest, loguniform
from tiny_runs import tiny_run

from raw2s.config import parse_config
from raw2s.errors import ConfigError
from raw2s.tuning.space import drawn_points, find_knobs, grid_points, simplex, tree_at

TREE = tiny_run("runs") | {
    "methods": [{"method": "bayesian", "loss": {"gamma_max": {"uniform": [0, 0.5]}, "kl_weight": {"loguniform": [1e-4, 1]}}}],
    "weights": {"loss": {"simplex": 2}, "joint": [1, 1]},
    "labeling": {"beams": {"int": [1, 5]}, "max_new_tokens": 24, "batch_size": 12},
    "teacher_training": {"schedule": {"choice": ["linear", "cosine", "constant"]}},
}
KNOBS = find_knobs(TREE)
NAMES = ["methods.0.loss.gamma_max", "methods.0.loss.kl_weight", "weights.loss", "labeling.beams", "teacher_training.schedule"]


def test_every_distribution_is_found_under_its_key():
    assert sorted(knob.key for knob in KNOBS) == sorted(NAMES)


unit = st.floats(0, 1)


@given(st.fixed_dictionaries(dict.fromkeys(NAMES[:4], unit) | {NAMES[4]: st.sampled_from([0.0, 1.0, 2.0])}))
def test_every_point_is_a_config_with_values_inside_the_bounds(point):
    config = parse_config(tree_at(TREE, KNOBS, point))
    loss = config.methods[0].loss.model_dump()
    assert 0 <= loss["gamma_max"] <= 0.5
    assert 1e-4 <= loss["kl_weight"] <= 1
    assert 1 <= config.labeling.beams <= 5
    assert sum(config.weights.loss) == pytest.approx(1, abs=1e-5)
    assert config.teacher_training.schedule == ["linear", "cosine", "constant"][int(point[NAMES[4]])]
    assert TREE["weights"]["loss"] == {"simplex": 2}, "the tree itself has changed"


def values(name: str, count: int = 2000) -> list:
    knob = next(knob for knob in KNOBS if knob.key == name)
    return [knob.value(point) for point in drawn_points(KNOBS, count, seed=7)]


def test_drawn_values_follow_their_distributions():
    assert kstest(values(NAMES[0]), "uniform", args=(0, 0.5)).pvalue > 0.01
    assert kstest(values(NAMES[1]), loguniform(1e-4, 1).cdf).pvalue > 0.01
    for name, options in ((NAMES[3], 5), (NAMES[4], 3)):
        found, counts = np.unique(values(name), return_counts=True)
        assert len(found) == options
        assert counts == pytest.approx(2000 / options, rel=0.15)


def worst_marginal(weights_DN: np.ndarray) -> float:
    """The smallest p-value, times their number (Bonferroni), of the weights' marginals against those of the uniform distribution on
    the simplex, Beta(1, N - 1)."""
    n = weights_DN.shape[1]
    return n * min(kstest(weights_D, beta(1, n - 1).cdf).pvalue for weights_D in weights_DN.T)


@pytest.mark.parametrize("n", [3, 5])
def test_the_simplex_is_uniform_and_normalized_uniforms_are_not(n):
    rng = np.random.default_rng(0)
    uniform_DN = rng.random((4000, n))
    assert worst_marginal(np.array([simplex(u) for u in uniform_DN[:, 1:]])) > 0.01
    assert worst_marginal(uniform_DN / uniform_DN.sum(1, keepdims=True)) < 1e-6


def test_two_weights_of_three_are_uniform_together():
    """Marginals alone could deceive: of a uniform point, w_2 / (1 - w_1) is uniform and tells nothing of w_1."""
    weights_D3 = np.array([simplex(u) for u in np.random.default_rng(1).random((4000, 2))])
    ratio_D = weights_D3[:, 1] / (1 - weights_D3[:, 0])
    assert kstest(ratio_D, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(ratio_D, weights_D3[:, 0])[0, 1]) < 0.04


def test_a_longer_list_of_drawn_points_begins_as_a_shorter():
    assert drawn_points(KNOBS, 6, seed=1)[:3] == drawn_points(KNOBS, 3, seed=1)
    assert drawn_points(KNOBS, 3, seed=2) != drawn_points(KNOBS, 3, seed=1)


def test_a_grid_is_every_combination():
    knobs = [knob for knob in KNOBS if knob.key in NAMES[3:]]
    found = [{knob.key: knob.value(point) for knob in knobs} for point in grid_points(knobs)]
    wanted = [{NAMES[3]: beams, NAMES[4]: schedule} for beams in range(1, 6) for schedule in ("linear", "cosine", "constant")]
    assert len(found) == len(wanted)
    assert all(point in found for point in wanted)
    with pytest.raises(ConfigError, match="a grid goes over choice and int"):
        grid_points(KNOBS)


@pytest.mark.parametrize(
    ("node", "told"),
    [
        ({"uniform": [1, 0]}, r"a\.0\.b\.uniform: 1 is not below 0; write"),
        ({"uniform": 3}, r"a\.0\.b\.uniform: 3 are not two numbers; write"),
        ({"uniform": [0, True]}, "are not two numbers"),
        ({"loguniform": [0, 1]}, "0 has no logarithm; start above zero"),
        ({"int": [0, 1.5]}, "are not whole numbers"),
        ({"choice": [1]}, "no list of two or more different values"),
        ({"choice": [1, 1]}, "no list of two or more different values"),
        ({"simplex": 1}, "is no number of weights"),
        ({"uniform": [0, 1], "log": True}, r"a\.0\.b: a distribution is one name and its argument, not uniform, log"),
    ],
)
def test_a_mistake_names_its_key(node, told):
    with pytest.raises(ConfigError, match=told) as refused:
        find_knobs({"a": [{"b": node}]})
    assert str(refused.value).startswith("a.0.b")
