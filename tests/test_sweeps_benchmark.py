"""benchmarks/sweeps.py with its models replaced, and docs/sweeps.md, which says what benchmarks/results/sweeps.json says."""

import json
from dataclasses import replace

import numpy as np
import pytest
import sweeps
import sweeps_page
from faked_runs import answers_of, fake_models

from raw2s.pipeline.execute import Done, build
from raw2s.pipeline.stage import Work
from raw2s.tuning.best import Outcome
from raw2s.tuning.trials import new_trial, write_trials


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Measures a task from sweeps of six trials that ended before; gives the results and the students that were made."""
    fake_models(monkeypatch)
    made: list[str] = []

    def swept(searched):
        (sweep,) = searched
        points = [dict.fromkeys(sweep.start, at) for at in np.linspace(0.1, 0.9, 6)]
        trials = [
            replace(new_trial(sweep, i, point), status="finished", figure=1.0 - 0.1 * i, epoch=1)
            for i, point in enumerate(points)
        ]
        folder = tmp_path / "runs" / sweep.settings.name
        folder.mkdir(parents=True, exist_ok=True)
        write_trials(folder, sweep, trials)
        return [Outcome(sweep=sweep, order=trials, found=0, made=0)]

    def fit(job, out, parts, **_):
        learned = job.learned
        made.append(job.name)
        return {} if learned is None else {f"teacher_weight/{name}": 1 / (2 + job.seed) for name in learned.teachers}

    def execute(stages, *, store, **_):
        done: dict[str, Done] = {}
        for stage in stages:
            inputs = {needed.key: done[needed.name].artifact for needed in stage.inputs.values()}
            found = store.find(stage.kind, stage.key, print)
            done[stage.name] = Done(
                found or build(stage, store, Work(inputs=inputs, out=tmp_path, parts=tmp_path)), cached=found is not None
            )
        return done

    monkeypatch.setattr("raw2s.training.fit.fit", fit)
    monkeypatch.setattr("raw2s.labeling.answers.answers_of", answers_of)
    monkeypatch.setattr(sweeps, "run_sweeps", swept)
    monkeypatch.setattr(sweeps, "execute", execute)
    monkeypatch.setattr(sweeps, "start_ray", lambda *_, **__: None)

    def go(name):
        made.clear()
        sweeps.measure(name, "tiny", tmp_path / "runs", tmp_path / "sweeps.json")
        return json.loads((tmp_path / "sweeps.json").read_text())[name], list(made)

    return go


@pytest.mark.parametrize("name", sweeps.TASKS)
def test_every_way_to_weigh_is_tested_with_every_seed_and_teachers_are_made_once(measured, name):
    found, made = measured(name)
    assert [(row["weights"], row["values"]) for row in found["settings"]] == [(s.weights, s.values) for s in sweeps.SETTINGS]
    assert sum(stage.startswith("teacher/") for stage in made) == 3
    assert len([stage for stage in made if stage.startswith("student/")]) == 2 * len(sweeps.SETTINGS)
    rows = {(row["weights"], row["values"]): row for row in found["settings"]}
    assert rows["hand-set", "swept"]["weights_per_seed"] == [[0.25, 0.25, 0.5]] * 2
    assert rows["swept", "swept"]["weights_per_seed"][0] == pytest.approx(found["trials"][0]["values"]["weights.loss"])
    assert rows["raven", "swept"]["weights_per_seed"] == [pytest.approx([1 / 3] * 3), pytest.approx([1 / 4] * 3)]
    assert sum(rows["devel", "swept"]["weights_per_seed"][0]) == pytest.approx(1)
    assert sum(found["importance"].values()) > 0 and found["best"] == 0
    again, made = measured(name)
    assert made == [] and again["settings"] == found["settings"], "a second start goes on from what is there"
    text = "\n".join(sweeps_page.lines_of({name: found}))
    assert (
        "6 trials, 2 training seeds, 24 test examples" in text
        and "| set by hand | found by the sweep | 0.25, 0.25, 0.50 |" in text
    )


def test_differences_are_to_uniform_weights_and_paired():
    better, worse = (sweeps.Setting(weights=w) for w in ("swept", "uniform"))
    right = np.repeat([1.0, 0.0], 50)
    counts = {worse: [right, right], better: [np.maximum(right, np.arange(100) >= 90)] * 2}
    row = sweeps.compared(counts, lambda mean: mean)[1]
    assert (row["score"], row["difference"]) == (pytest.approx(0.6), pytest.approx(0.1))
    low, high = row["difference_ci95"]
    assert 0 < low < 0.1 < high and high - low < 0.8 * (row["ci95"][1] - row["ci95"][0])


def test_the_page_says_what_was_measured():
    page = sweeps_page.PAGE.read_text()
    assert sweeps_page.written(page, sweeps_page.measured()) == page
