"""A sweep from its file: a base and what differs, what is refused and how, which stages trials share."""

import pytest
import yaml
from own_mails import own_mails
from tiny_runs import tiny_run

from raw2s.cli import main
from raw2s.config import merged
from raw2s.errors import ConfigError
from raw2s.pipeline.resources import reserved
from raw2s.tuning.reading import load_sweeps
from raw2s.tuning.resources import trials_at_once
from raw2s.tuning.space import is_distribution
from raw2s.tuning.sweep import shared_stages

GAMMA = {"methods": {0: {"loss": {"gamma_max": {"uniform": [0, 0.5]}}}}}


@pytest.fixture
def sweeps_of(tmp_path):
    """Reads a sweep over a tiny base, of what differs from it: what is searched for each entry."""
    base = tiny_run(tmp_path / "runs") | {"student_training": {"epochs": 2, "keep": "best", "judge": "score", "workers": 2}}
    base["methods"][0]["cdpo"] = False
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))

    def read(changes, *overrides):
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"base": "base.yaml", **changes}))
        return load_sweeps(tmp_path / "sweep.yaml", list(overrides))

    return read


@pytest.fixture
def sweep_of(sweeps_of):
    """The same of one entry."""

    def read(changes, *overrides):
        (sweep,) = sweeps_of(changes, *overrides)
        return sweep

    return read


def test_what_differs_is_put_over_the_base():
    base = {"a": {"b": 1, "c": [1, 2]}, "m": [{"x": 1}, {"x": 2}]}
    assert merged(base, {"a": {"c": [3]}, "m": {1: {"y": 3}}}) == {"a": {"b": 1, "c": [3]}, "m": [{"x": 1}, {"x": 2, "y": 3}]}
    assert merged(base, {"a": {"choice": [1, 2]}}, is_distribution) == {**base, "a": {"choice": [1, 2]}}
    assert merged({"a": {"choice": [1, 2]}}, {"a": {"b": 1}}, is_distribution) == {"a": {"b": 1}}


def test_overrides_reach_the_base_the_space_and_the_section(sweep_of):
    sweep = sweep_of(GAMMA, "sweep.trials=3", "labeling.beams=3", "weights.loss={simplex: 2}")
    assert sweep.settings.trials == 3
    assert {knob.key for knob in sweep.knobs} == {"weights.loss", "methods.0.loss.gamma_max"}
    config = sweep.config(sweep.point(0.5, 0))
    assert (config.labeling.beams, config.methods[0].loss.gamma_max, config.weights.loss) == (3, 0.25, [0.5, 0.5])


REFUSED = {
    "a key of an earlier version": (GAMMA | {"gamma_max": {"low": 0}}, "gamma_max: a sweep's file is a run config"),
    "trials at the top": (GAMMA | {"trials": 2}, "trials: .*; write sweep.trials"),
    "no distribution": ({}, "no key of the config is a distribution; write one"),
    "an unknown key of the section": (GAMMA | {"sweep": {"trails": 2}}, r"sweep\.trails: unknown key; did you mean trials"),
    "a wrong value of the section": (GAMMA | {"sweep": {"search": "bayes"}}, r"sweep\.search: input should be 'random'"),
    "a range that no config takes": (
        {"methods": {0: {"loss": {"gamma_max": {"uniform": [-1, 0.5]}}}}},
        r"methods\.0\.loss\.gamma_max: .*greater than or equal to 0",
    ),
    "weights of more teachers": ({"weights": {"loss": {"simplex": 3}}}, "weights.loss: 3 weights for 2 teachers"),
    "an option that no run takes": (
        {"student": {"model": {"choice": ["tiny-llama", "/no/model"]}}},
        r"student\.model: no folder",
    ),
    "the folder": ({"storage": {"choice": ["a", "b"]}}, "storage: storage is one for all trials"),
    "what comes after the model": (
        {"evaluation": {"beams": {"int": [1, 3]}}},
        r"evaluation\.beams: the model that is judged does not depend on it",
    ),
    "an entry that is not there": (GAMMA | {"sweep": {"methods": [1]}}, "sweep.methods: there is no entry 1 of methods"),
    "the key of an earlier version": (GAMMA | {"sweep": {"method": 0}}, r"sweep\.method: .*; write sweep\.methods: \[0\]"),
    "epochs that are not compared": (
        GAMMA | {"student_training": {"keep": "last", "judge": "loss"}},
        r"student_training\.keep: a sweep compares",
    ),
    "text by its tokens": (
        GAMMA | {"student_training": {"judge": "loss"}},
        r"student_training\.judge: loss leaves .*; set it to score",
    ),
    "another figure a trial": (
        GAMMA | {"student_training": {"judge": {"choice": ["loss", "score"]}}},
        r"student_training\.judge: trials that are judged by different figures",
    ),
    "a grid over numbers": (GAMMA | {"sweep": {"search": "grid"}}, r"methods\.0\.loss\.gamma_max: a grid goes over"),
    "a grid larger than the sweep": (
        {"labeling": {"beams": {"int": [1, 4]}}, "sweep": {"search": "grid", "trials": 3}},
        r"sweep\.trials: the grid has 4 points and 3 trials; set sweep\.trials: 4",
    ),
    "the store's folder": (GAMMA | {"sweep": {"name": "artifacts"}}, "sweep.name: artifacts is the artifact store's folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_sweep_that_cannot_run_is_one_line(sweep_of, case):
    changes, told = REFUSED[case]
    with pytest.raises(ConfigError, match=told) as refused:
        sweep_of(changes)
    assert "\n" not in str(refused.value)


def test_the_command_says_it_in_a_line(tmp_path, capsys):
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"base": "nowhere.yaml"}))
    assert main(["sweep", str(tmp_path / "sweep.yaml")]) == 2
    assert (
        capsys.readouterr().err == f"raw2s sweep: {tmp_path / 'nowhere.yaml'}: no such config file; see configs/ for examples\n"
    )


SHARED = {
    "a knob of the loss leaves the student": (GAMMA, {"student"}),
    "the weights leave it too": ({"weights": {"loss": {"simplex": 2}}}, {"student"}),
    "those of joint decoding": (
        {"methods": [{"method": "joint"}], "weights": {"joint": {"simplex": 2}}, "labeling": {"beams": 2}},
        {"student"},
    ),
    "a teacher's rate trains that teacher": (
        {"teachers": {1: {"learning_rate": {"loguniform": [1e-4, 1e-2]}}}},
        {"teacher/opt", "beams/opt", "label", "student"},
    ),
    "preference's weights leave the student as it is": (
        {
            "methods": [{"method": "bayesian", "cdpo": True}],
            "preference": {"training": {"keep": "best", "judge": "score"}},
            "weights": {"preference": {"simplex": 2}},
        },
        {"pairs", "cdpo"},
    ),
    "cDPO's beta leaves the pairs": (
        {
            "methods": [{"method": "bayesian", "cdpo": True}],
            "preference": {"training": {"keep": "best", "judge": "score"}, "loss": {"beta": {"uniform": [0.1, 2]}}},
        },
        {"cdpo"},
    ),
}


@pytest.mark.parametrize("case", SHARED)
def test_a_trial_begins_at_the_first_stage_its_keys_touch(sweep_of, case):
    changes, own = SHARED[case]
    shared, left = shared_stages(sweep_of(changes))
    named = {stage.name if stage.name.startswith(("teacher", "beams")) else stage.name.partition("/")[0] for stage in left}
    assert named == own
    assert {"split", "validation", "teacher/gpt2", "beams/gpt2"} <= {stage.name for stage in shared}


def test_trials_at_once_are_as_many_as_the_largest_stage_leaves_room_for(sweep_of):
    _, left = shared_stages(sweep_of(GAMMA))
    assert [reserved(stage) for stage in left] == [{"CPU": 2, "GPU": 0}] * 2
    assert trials_at_once(left, {"CPU": 8}) == 3  # the third's process needs its share too
    assert trials_at_once(left, {"CPU": 1}) == 1
    teachers = {
        "teachers": {1: {"learning_rate": {"uniform": [1e-3, 1e-2]}, "num_gpus": 1}},
        "teacher_training": {"gpus_per_worker": 1},
    }
    _, left = shared_stages(sweep_of(teachers))
    assert trials_at_once(left, {"CPU": 64, "GPU": 3}) == 3
    assert trials_at_once(left, {"CPU": 6.5, "GPU": 8}) == 3


def test_a_crowd_method_may_be_one_of_the_options(tmp_path):
    tree = tiny_run(tmp_path) | own_mails(tmp_path) | {"student_training": {"keep": "best"}}
    tree["methods"] = [{"method": {"choice": ["naive", "majority"]}}]
    tree["labeling"] = {"batch_size": 24}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(tree))
    _, left = shared_stages(load_sweeps(tmp_path / "sweep.yaml", [])[0])
    assert {stage.kind for stage in left} == {"combine", "student"}
