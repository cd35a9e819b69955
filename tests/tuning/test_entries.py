"""Several entries of `methods`, each searched by itself: what each searches, what best.yaml holds of it, and what is refused."""

import io
from dataclasses import replace

import pytest
import yaml
from rich.console import Console
from tiny_runs import tiny_run

from raw2s.config import load_config, parse_config
from raw2s.errors import ConfigError
from raw2s.tuning import sweep
from raw2s.tuning.best import Outcome, best_tree, table_of, write_fronts
from raw2s.tuning.entries import joined, own_tree
from raw2s.tuning.reading import load_sweeps
from raw2s.tuning.space import find_knobs
from raw2s.tuning.trials import new_trial, searched

SIMPLEX, RATE = {"simplex": 2}, {"loguniform": [1e-4, 1e-2]}
METHODS = ["naive", {"method": "bayesian", "weights": {"loss": [1, 3]}}, {"method": "single", "teacher": "opt"}]
SPACE = {"weights": {"loss": SIMPLEX}, "methods": {1: {"loss": {"gamma_max": {"uniform": [0, 0.5]}}}}}


@pytest.fixture
def sweeps_of(tmp_path):
    base = tiny_run(tmp_path / "runs", methods=METHODS, weights={"loss": [2, 1]})
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))

    def read(changes, **settings):
        tree = {"base": "base.yaml", **changes, "sweep": {"methods": "all", **settings}}
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(tree))
        return load_sweeps(tmp_path / "sweep.yaml", [])

    return read


def test_each_entry_searches_what_its_model_depends_on_and_no_more(sweeps_of):
    sweeps = sweeps_of(SPACE)
    assert [(sweep.part, [knob.key for knob in sweep.knobs]) for sweep in sweeps] == [
        ("0-naive", ["methods.0.weights.loss"]),
        ("1-bayesian", ["methods.1.loss.gamma_max"]),  # its own weights are a value
        ("2-single-opt", []),
    ]
    assert [sweep.tree["weights"] for sweep in sweeps] == [{"loss": [2, 1]}] * 3
    rates = sweeps_of({"student_training": {"learning_rate": RATE}, "weights": {"loss": SIMPLEX}})
    assert [len(sweep.knobs) for sweep in rates] == [2, 1, 1]
    assert rates[2].knobs[0].key == "methods.2.training.learning_rate"


def test_one_listed_entry_has_its_values_for_itself_and_the_sweeps_own_folder(sweeps_of):
    (sweep,) = sweeps_of({"weights": {"loss": SIMPLEX}}, methods=[0])
    assert (sweep.part, [knob.key for knob in sweep.knobs]) == ("", ["methods.0.weights.loss"])
    config = sweep.config(sweep.start)
    assert config.weights.loss == [2, 1]
    assert config.of(config.methods[0]).weights.loss == pytest.approx([0.25, 0.75])


def test_a_config_of_one_entry_keeps_its_keys(sweeps_of):
    tree = {"methods": ["naive"], "weights": {"loss": SIMPLEX}}
    assert own_tree(tree, {}, 0) == tree
    assert own_tree({**tree, "methods": ["naive", "joint"]}, {}, 1) == {
        "methods": ["naive", {"method": "joint", "weights": {"loss": SIMPLEX}}],
        "weights": {},
    }


def test_an_entrys_search_is_its_own(sweeps_of):
    one, two, _ = sweeps_of(SPACE)
    assert searched(one) != searched(replace(one, entry=1))
    again = sweeps_of(SPACE, methods=[0, 1], test_seeds=[1, 2], trials=9)
    assert [searched(sweep) for sweep in again] == [searched(one), searched(two)]


def ended(searching, figure):
    trial = replace(new_trial(searching, 1, searching.point(0.5, 0)), status="finished", figure=figure, epoch=2)
    worse = replace(new_trial(searching, 2, searching.point(0.9, 0)), status="stopped", figure=figure / 2, epoch=1)
    return Outcome(sweep=searching, order=[trial, worse], found=4, made=1)


def test_one_config_has_every_entry_at_its_best(sweeps_of):
    sweeps = sweeps_of(SPACE, test_seeds=[3, 4])
    tree = best_tree([ended(sweeps[0], 0.5), ended(sweeps[1], 0.6)])
    assert not find_knobs(tree)
    config = parse_config(yaml.safe_load(yaml.safe_dump(tree)))
    naive, bayesian, single = config.methods
    assert naive.weights == {"loss": [0.5, 0.5]}
    assert (bayesian.loss.gamma_max, bayesian.weights) == (0.25, {"loss": [1, 3]})
    assert (single.weights, config.weights.loss, config.seeds, config.name) == ({}, [2, 1], [3, 4], "tiny-best")
    assert ended(sweeps[0], 0.5).best.name == "0-naive/trial-1"


def test_other_points_of_the_front_are_configs_of_their_own(sweeps_of, tmp_path):
    sweeps = sweeps_of(SPACE, objectives=["devel_score", "validation_loss"], scheduler="none")
    (tmp_path / "0-naive").mkdir()
    (tmp_path / "0-naive" / "front-9.yaml").touch()
    one, two = ended(sweeps[0], 0.5), ended(sweeps[1], 0.6)
    one = replace(one, order=[replace(trial, front=True) for trial in one.order])
    (file,) = write_fronts([one, two], tmp_path)
    assert sorted(tmp_path.glob("*/*.yaml")) == [file] == [tmp_path / "0-naive" / "front-1.yaml"]
    config = parse_config(yaml.safe_load(file.read_text()))
    assert config.methods[0].weights == {"loss": [pytest.approx(0.9), pytest.approx(0.1)]}
    assert (config.methods[1].loss.gamma_max, config.name) == (0.25, "tiny-best-front-1")


def test_the_table_has_a_row_an_entry_and_says_which_one_was_not_searched(sweeps_of):
    sweeps = sweeps_of(SPACE)
    file = io.StringIO()
    Console(file=file, width=150).print(table_of(sweeps, [ended(sweeps[0], 0.5), ended(sweeps[1], 0.6)]))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in file.getvalue().splitlines() if "│" in line]
    assert rows == [
        ["0-naive", "2", "0.5000", "weights.loss [0.5, 0.5]"],
        ["1-bayesian", "2", "0.6000", "loss.gamma_max 0.25"],
        ["2-single-opt", "0", "", "as it is: no searched key bears on it"],
    ]


def test_the_best_config_is_run_once_on_test_and_the_last_lines_name_its_folder(sweeps_of, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    sweeps, run, file = sweeps_of(SPACE, test_seeds=[3, 4]), [], io.StringIO()
    monkeypatch.setattr(sweep, "start_ray", lambda config, dashboard: None)
    monkeypatch.setattr(sweep, "_execute", lambda running, stages: {})
    monkeypatch.setattr(sweep, "search_entry", lambda running, known, own: ended(running.sweep, 0.5))
    monkeypatch.setattr(sweep, "write_sweep_page", lambda searching, trials, folder: folder / "trials.jsonl")
    monkeypatch.setattr(sweep, "run_pipeline", lambda config, console: run.append(config))
    sweep.run_sweeps(sweeps, Console(file=file, width=300))
    (config,) = run
    assert (config.seeds, config.name) == ([3, 4], "tiny-best")
    assert config == load_config(tmp_path / "runs" / "sweep" / "best.yaml")
    last = [line.split() for line in file.getvalue().splitlines()[-8:]]
    assert [words[0] for words in last] == ["stages", "0-naive", "1-bayesian", "best", "tested", "report", "report", "mlflow"]
    assert last[0][-4:] == ["8", "found,", "2", "made"]  # of both entries together
    assert last[4][1] == str(config.storage.resolve() / "tiny-best")


def test_joining_takes_each_entry_from_its_own_tree():
    trees = {i: {"seeds": [1], "methods": [f"{name}{i}" for name in "abc"]} for i in (2, 0)}
    assert joined(trees) == {"seeds": [1], "methods": ["a0", "b2", "c2"]}


REFUSED = {
    "a key that entries cannot each have": (
        {"teachers": {1: {"learning_rate": RATE}}},
        {},
        r"teachers\.1\.learning_rate: it is one for all entries of methods, .*; give a value, or list one entry",
    ),
    "a knob of an entry that is not listed": (
        SPACE,
        {"methods": [0]},
        r"methods\.1\.loss\.gamma_max: the model that is judged does not",
    ),
    "a shared knob that no listed entry reads": (
        {"weights": {"joint": SIMPLEX}},
        {},
        r"weights\.joint: the model that is judged does not depend on it; give a value, or list another entry in sweep\.methods",
    ),
    "an entry that is options": (
        {"methods": ["naive", {"choice": ["naive", "joint"]}], "weights": {"loss": SIMPLEX}},
        {},
        r"methods\.1: an entry that is a distribution .*; write its options as entries",
    ),
    "an end that no config takes": (
        {"student_training": {"learning_rate": {"uniform": [0, 1]}}},
        {},
        r"methods\.0\.training\.learning_rate: input should be greater than 0",
    ),
    "an entry twice": (SPACE, {"methods": [0, 0]}, r"sweep\.methods: one of them occurs twice; remove it"),
    "a seed of the test twice": (SPACE, {"test_seeds": [2, 2]}, r"sweep\.test_seeds: one of them occurs twice"),
    "objectives without what is judged": (
        SPACE,
        {"objectives": ["validation_loss"]},
        r"sweep\.objectives lack devel_score, .*; add it",
    ),
    "several objectives and one figure to stop by": (
        SPACE,
        {"objectives": ["devel_score", "validation_loss"]},
        r"sweep\.scheduler: asha stops trials by one figure, .*; set it to none",
    ),
    "another word": (SPACE, {"methods": "every"}, r"sweep\.methods: input should be 'all'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_searched_for_each_entry_is_one_line(sweeps_of, case):
    changes, settings, told = REFUSED[case]
    with pytest.raises(ConfigError, match=told) as refused:
        sweeps_of(changes, **settings)
    assert "\n" not in str(refused.value)
