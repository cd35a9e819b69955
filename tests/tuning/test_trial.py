"""What one trial leaves in the sweep's folder; that real ones report to Tune is what the slow sweeps show."""

import os
from types import SimpleNamespace

import pytest
from ray import tune
from test_trials import POINTS, SWEEP

from raw2s.errors import StageFailed
from raw2s.tuning import trial


@pytest.mark.parametrize("fails", [False, True])
def test_checkpoints_go_once_the_model_is_published_and_no_sooner(tmp_path, monkeypatch, fails):
    checkpoints, said = tmp_path / "checkpoints" / "one", []

    def build(stage, store, work):
        (work.parts / "train").mkdir()
        if fails:
            raise StageFailed("the disk is full")
        return SimpleNamespace(metrics={"validation_accuracy": 0.5, "validation_accuracy_se": 0.1})

    monkeypatch.setattr(trial, "execute", lambda stages, **_: {s.name: SimpleNamespace(artifact=s, cached=True) for s in stages})
    monkeypatch.setattr(trial, "build", build)
    monkeypatch.setattr(trial, "ReportKept", lambda *_: None)  # of a Tune session
    monkeypatch.setattr(tune, "get_context", lambda: SimpleNamespace(get_trial_id=lambda: "one"))
    monkeypatch.setattr(tune, "report", said.append)
    where = {"store": str(tmp_path / "store"), "folder": str(tmp_path), "started_in": os.getcwd()}
    if fails:
        with pytest.raises(StageFailed):
            trial.run_trial(POINTS[0], sweep=SWEEP, **where)
    else:
        trial.run_trial(POINTS[0], sweep=SWEEP, **where)
    assert checkpoints.exists() == fails
    assert len(said) == (not fails)
