"""The page of made-up sweeps: what it says, that it is well-formed, and that a trial is where it should be. No Ray."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from html_page import Page
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import tiny_run

from raw2s.config import SweepConfig
from raw2s.tuning.axes import axes_of, weights_of
from raw2s.tuning.figures import CORNERS, course_figure, parallel_figure, ternary_figure
from raw2s.tuning.importance import FEWEST, importance_of
from raw2s.tuning.outcome import best_on_devel, outcome
from raw2s.tuning.page import draw_sweep, write_sweep_page
from raw2s.tuning.searched import Sweep
from raw2s.tuning.space import drawn_points, find_knobs
from raw2s.tuning.trials import Trial, new_trial, ranked

NAMES = ["gpt2", "opt", "gpt-neox"]
NASTY = "wake <b>up</b> & $x$ <script>alert('x')</script>"


def sweep_over(**sections) -> Sweep:
    teachers = [{"name": name, "model": "tiny-gpt2"} for name in NAMES]
    tree = tiny_run(Path("runs")) | {"teachers": teachers, **sections}
    return Sweep(settings=SweepConfig(name="made-up", scheduler="asha"), entry=0, part="", tree=tree, knobs=find_knobs(tree))


LOSS = {"gamma_max": {"uniform": [0, 0.5]}, "kl_weight": {"loguniform": [1e-4, 1]}}
SWEEP = sweep_over(
    weights={"loss": {"simplex": 3}},
    labeling={"beams": {"int": [2, 5]}, "calibrate": {"choice": [None, "temperature"]}},
    methods=[{"method": "bayesian", "loss": LOSS}],
)
STATUSES = ("finished", "stopped", "finished", "failed", "finished", "stopped")


def made_up(sweep: Sweep, count: int, figure) -> list[Trial]:
    """Trials in turn finished, stopped and failed, of which `figure` says the score."""
    trials = []
    for number, point in enumerate(drawn_points(sweep.knobs, count, seed=1), 1):
        trial = replace(new_trial(sweep, number, point), status=STATUSES[number % 6], epoch=1 + number % 3)
        failed = trial.status == "failed"
        trials.append(replace(trial, reason=NASTY) if failed else replace(trial, figure=figure(trial), standard_error=0.01))
    return trials


TRIALS = made_up(SWEEP, 20, lambda trial: 0.4 + 0.3 * trial.values["weights.loss"][2])
ORDER = ranked(TRIALS)


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("sweep")
    file = write_sweep_page(SWEEP, TRIALS, folder)
    assert file == folder / "report.html"
    drawn = {"course", "importance", "knobs", "weights-0", "parallel"}
    assert {figure.stem for figure in (folder / "figures").iterdir()} == drawn
    return file.read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_loads_nothing(text):
    page = Page(text)
    assert page.open == []
    assert page.ids and len(set(page.ids)) == len(page.ids)
    assert all(link.startswith(("#", "data:,")) for link in page.loaded)
    links = {link[1:] for link in page.loaded if link.startswith("#")} | set(re.findall(r"url\(#([^)]+)\)", text))
    assert links <= set(page.ids)


def test_words_of_a_config_and_of_failures_are_escaped(text):
    page = Page(text)
    assert "script" not in page.tags and "b" not in page.tags
    failed = [trial for trial in TRIALS if trial.status == "failed"]
    assert page.text.count(NASTY) == len(failed) > 0
    assert f"{len(failed)} failed and have no score" in page.text


def test_options_that_look_like_markup_or_formulas_are_drawn_as_they_are(tmp_path):
    sweep = sweep_over(labeling={"calibrate": {"choice": ["<b>&", "$\\frac", "a $x$ b"]}})
    trials = made_up(sweep, 4, lambda trial: 0.5)
    (panels,) = (drawing for drawing in draw_sweep(sweep, trials, NAMES, "") if drawing.name == "knobs")
    panels.figure.canvas.draw()
    shown = [label.get_text().replace(r"\$", "$") for label in panels.figure.axes[0].get_xticklabels()]
    assert shown == ["<b>&", "$\\frac", "a $x$ b"]


def test_the_table_has_every_trial_that_counts_best_first(text):
    rows = re.findall(r'<tr><th scope="row" class="number">(\d+)</th>(.*?)</tr>', text)
    assert [int(number) for number, _ in rows] == [trial.number for trial in ORDER]
    for (_, cells), trial in zip(rows, ORDER, strict=True):
        low, high = trial.ci95
        for said in (f"{trial.figure:.3f}", f"[{low:.3f}, {high:.3f}]", trial.status, str(trial.epoch)):
            assert f">{said}</td>" in cells


def test_the_outcome_counts_the_trials_and_says_what_is_luck():
    said = outcome(SWEEP.settings, TRIALS)
    assert "20 trials, searched by tpe, stopped by asha: 10 trained to the end, 7 stopped early and 3 failed." in said
    assert re.search(rf"best on devel {ORDER[0].figure:.3f} ± 0\.010, of which about 0\.\d\d\d is luck of the choice", said)
    assert "luck" not in best_on_devel(ORDER[:2])
    assert best_on_devel([replace(ORDER[0], standard_error=None)]) == f"best on devel {ORDER[0].figure:.3f}"


def test_few_trials_of_an_older_file_have_a_page_too(tmp_path):
    trials = [replace(trial, standard_error=None) for trial in ORDER[:1]]
    page = Page(write_sweep_page(SWEEP, trials, tmp_path).read_text(encoding="utf-8"))
    assert page.open == []
    assert f"told from {FEWEST} trials with a figure on; there are 1" in page.text
    assert "±" not in page.text and "luck" not in page.text.lower()


def test_what_the_score_depends_on_matters_most_and_a_simplex_is_one_key():
    shares = importance_of(ORDER, SWEEP.knobs)
    assert shares.keys() == {knob.key for knob in SWEEP.knobs}
    assert next(iter(shares)) == "weights.loss" and shares["weights.loss"] > 0.5
    assert sum(shares.values()) <= 1 + 1e-9
    assert "same figure" in importance_of([replace(trial, figure=0.5) for trial in ORDER], SWEEP.knobs)


@given(st.integers(0, 10_000))
def test_a_number_drawn_uniformly_lies_uniformly_on_its_axis(seed):
    """An axis is straight where its distribution is: a uniform coordinate is the place itself."""
    (point,) = drawn_points(SWEEP.knobs, 1, seed)
    trial = new_trial(SWEEP, 1, point)
    places = {axis.title: axis.place(trial) for axis in axes_of(SWEEP.knobs, NAMES)}
    assert all(-1e-6 <= place <= 1 + 1e-6 for place in places.values())
    for key in ("methods.0.loss.gamma_max", "methods.0.loss.kl_weight", "labeling.calibrate"):
        assert places[key] == pytest.approx(point[key], abs=1e-5)
    assert sum(places[f"weights.loss {name}"] for name in NAMES) == pytest.approx(1, abs=1e-5)


def test_a_trial_lies_in_the_triangle_at_the_mean_of_the_corners_by_its_weights():
    (knob,) = [knob for knob in SWEEP.knobs if knob.name == "simplex"]
    (axes, _) = ternary_figure(ORDER, weights_of(knob, NAMES), NAMES).axes
    drawn = {tuple(np.round(points.get_offsets()[0], 6)) for points in axes.collections}
    assert drawn == {tuple(np.round(np.dot(trial.values["weights.loss"], CORNERS), 6)) for trial in ORDER}
    words = {text.get_text(): text.xy for text in axes.texts}
    assert words == dict(zip(NAMES, CORNERS, strict=True))


def test_other_than_three_weights_are_in_the_parallel_coordinates_alone():
    sweep = sweep_over(weights={"loss": {"simplex": 2}})
    trials = made_up(sweep, 4, lambda trial: 0.5)
    names = [drawing.name for drawing in draw_sweep(sweep, trials, NAMES[:2], "few")]
    assert names == ["course", "knobs", "parallel"]
    (axes,) = parallel_figure(ranked(trials), axes_of(sweep.knobs, NAMES[:2])).axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["weights.loss gpt2", "weights.loss opt", "score on devel"]


def test_the_best_so_far_never_falls_and_ends_at_the_best():
    shown = sorted(ORDER, key=lambda trial: trial.number)
    (axes,) = course_figure(shown).axes
    (line,) = [line for line in axes.get_lines() if line.get_label() == "best so far"]
    heights = list(line.get_ydata())
    assert heights == sorted(heights)
    assert heights[-1] == ORDER[0].figure
