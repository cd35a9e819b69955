"""What is known of trials, without Ray: the file that outlives the driver, what is left to try, and who is the best."""

import io
import math
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.exceptions import RayTaskError
from rich.console import Console
from tiny_runs import tiny_run

from raw2s.config import SweepConfig
from raw2s.errors import ConfigError, StageFailed
from raw2s.tracking import tracked_run
from raw2s.tuning.judged import JUDGED, JUDGED_SE, MERIT, figures_of, kept_of
from raw2s.tuning.log import TrialLog, line_of, reason_of
from raw2s.tuning.search import points_ahead, scheduler_of, search_of, trials_left
from raw2s.tuning.searched import Sweep
from raw2s.tuning.space import find_knobs
from raw2s.tuning.trials import (
    FILE,
    Trial,
    append_trial,
    new_trial,
    objectives_of,
    opened,
    read_trials,
    searched,
    settled,
    with_front,
    write_trials,
)


def sweep_over(**settings) -> Sweep:
    tree = tiny_run(Path("runs")) | {
        "weights": {"loss": {"simplex": 2}},
        "labeling": {"calibrate": {"choice": [None, "temperature"]}},
    }
    return Sweep(settings=SweepConfig(**settings), entry=0, part="", tree=tree, knobs=find_knobs(tree))


SWEEP = sweep_over(trials=4, search="random")
POINTS = points_ahead(SWEEP, [])
ONE, TWO, THREE, FOUR = [new_trial(SWEEP, number, point) for number, point in enumerate(POINTS, 1)]
FINISHED = replace(ONE, status="finished", figure=0.7, standard_error=0.01, epoch=3)
STOPPED = replace(TWO, status="stopped", figure=0.8, standard_error=0.02, epoch=1)
FAILED = replace(THREE, status="failed", reason="the loss is nan")


def test_where_a_sweep_is_logged_makes_it_no_other_search():
    assert searched(replace(SWEEP, tree=SWEEP.tree | {"tracking": []})) == searched(SWEEP)
    assert searched(replace(SWEEP, tree=SWEEP.tree | {"seeds": [2]})) != searched(SWEEP)


def test_what_was_written_is_read_though_the_last_line_is_cut_off(tmp_path):
    write_trials(tmp_path, SWEEP, [])
    for trial in (ONE, TWO, FINISHED, THREE, STOPPED, FAILED, FOUR):
        append_trial(tmp_path, trial)
    with (tmp_path / FILE).open("a") as file:
        file.write('{"number": 4, "status": "fini')
    assert read_trials(tmp_path, SWEEP) == [FINISHED, STOPPED, FAILED, FOUR]
    assert read_trials(tmp_path / "nothing", SWEEP) == []


def test_trials_of_a_file_without_standard_errors_are_read(tmp_path):
    write_trials(tmp_path, SWEEP, [FINISHED])
    file = tmp_path / FILE
    file.write_text(file.read_text().replace('"standard_error": 0.01, ', ""))
    assert read_trials(tmp_path, SWEEP) == [replace(FINISHED, standard_error=None)]


def test_the_interval_of_a_figure_stays_a_score():
    assert FINISHED.ci95 == pytest.approx((0.7 - 0.0196, 0.7 + 0.0196))
    assert replace(FINISHED, figure=0.99).ci95[1] == 1
    assert FAILED.ci95 == (None, None) == replace(FINISHED, standard_error=None).ci95


def test_another_space_is_refused_and_more_trials_are_not(tmp_path):
    write_trials(tmp_path, SWEEP, [FINISHED])
    assert read_trials(tmp_path, sweep_over(trials=9, search="random", concurrent=1)) == [FINISHED]
    with pytest.raises(ConfigError, match=r"^sweep.name: .* holds trials of another search; set another sweep.name, or delete"):
        read_trials(tmp_path, sweep_over(trials=4, search="random", seed=2))


def test_a_second_driver_is_refused_until_the_first_is_done(tmp_path):
    write_trials(tmp_path, SWEEP, [FINISHED])
    with (
        opened(tmp_path, SWEEP) as trials,
        pytest.raises(
            ConfigError, match=r"^sweep.name: a sweep is running in .*; wait until it ends, or set another sweep.name$"
        ),
        opened(tmp_path, SWEEP),
    ):
        pass
    assert trials == [FINISHED]
    with opened(tmp_path, SWEEP) as trials:
        assert trials == [FINISHED]


@pytest.mark.parametrize("search", ["random", "tpe"])
def test_a_new_start_repeats_no_finished_or_stopped_trial(search):
    sweep = sweep_over(trials=4, search=search)
    known = [FINISHED, STOPPED, FAILED]
    assert trials_left(sweep, known) == 2
    proposals = search_of(sweep, known)
    proposed = [proposals.suggest(str(i)) for i in range(2)]
    assert proposed[0] == THREE.point
    assert proposed[1] not in (ONE.point, TWO.point, THREE.point)
    assert search != "random" or proposed[1] == FOUR.point
    told = [t.value for t in proposals._ot_study.trials if t.value is not None]
    assert told == [0.7, 0.8]


def test_a_trial_tried_again_is_not_tried_a_third_time():
    again = replace(THREE, number=4, status="finished", figure=0.1, epoch=3)
    sweep = sweep_over(trials=4, search="tpe")
    assert points_ahead(sweep, [FINISHED, STOPPED, FAILED, again]) == []
    assert trials_left(sweep, [FINISHED, STOPPED, FAILED, again]) == 1


def test_tpe_of_a_new_start_does_not_propose_its_first_points_again():
    sweep = sweep_over(trials=4, search="tpe")
    first = search_of(sweep, []).suggest("a")
    known = replace(FINISHED, point={name: float(at) for name, at in first.items()})
    assert search_of(sweep, [known]).suggest("b") != first


def test_a_stopped_trial_that_would_be_best_is_run_to_its_end_before_it_is_chosen():
    asked = []

    def run_to_end(trial):
        asked.append(trial.number)
        return trial if trial.status == "finished" else replace(trial, status="finished", figure=ends[trial.number], epoch=3)

    ends = {2: 0.6}
    order = settled([FINISHED, STOPPED, FAILED], run_to_end)
    assert [(t.number, t.status, t.figure) for t in order] == [(1, "finished", 0.7), (2, "finished", 0.6)]
    assert asked == [2, 1]
    ends = {2: 0.9}
    assert settled([FINISHED, STOPPED], run_to_end)[0].number == 2


def test_a_best_trial_whose_model_cannot_be_made_gives_way():
    order = settled([FINISHED, STOPPED], lambda t: replace(t, status="failed") if t.number == 2 else t)
    assert [t.number for t in order] == [1]
    assert settled([FAILED], lambda t: t) == []


def test_a_stopped_trial_that_is_not_the_best_stays_stopped():
    low = replace(STOPPED, figure=0.5)
    assert settled([FINISHED, low], lambda t: t) == [FINISHED, low]


BOTH = sweep_over(trials=4, objectives=["devel_score", "validation_loss"], scheduler="none")


def placed(number: int, score: float, loss: float) -> Trial:
    return replace(ONE, number=number, status="finished", figure=score, objectives={"validation_loss": loss})


def test_of_several_objectives_the_front_is_marked_and_stands_first():
    order = [placed(1, 0.9, 2.0), placed(2, 0.9, 1.5), placed(3, 0.8, 1.6), placed(4, 0.7, 1.0), placed(5, 0.7, 1.0)]
    marked = with_front(BOTH.settings, order)
    assert [(trial.number, trial.front) for trial in marked] == [(2, True), (4, True), (5, True), (1, False), (3, False)]
    assert with_front(SWEEP.settings, order) == order


@given(values=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1))
def test_what_is_not_on_the_front_is_beaten_by_one_that_is(values):
    marked = with_front(BOTH.settings, [placed(i, score, loss) for i, (score, loss) in enumerate(values)])
    front = [(t.figure, -t.objectives["validation_loss"]) for t in marked if t.front]
    assert max(score for score, _ in values) == max(score for score, _ in front)
    for trial in marked:
        own = (trial.figure, -trial.objectives["validation_loss"])
        beaten = any(other != own and other[0] >= own[0] and other[1] >= own[1] for other in front)
        assert beaten != trial.front


def test_the_search_is_told_all_objectives_of_earlier_trials_and_of_its_own():
    proposals = search_of(BOTH, [placed(1, 0.9, 2.0), replace(placed(2, 0.5, 1.0), point=TWO.point)])
    proposals.suggest("a")
    proposals.on_trial_complete("a", {"devel_score": 0.7, "validation_loss": 1.2})
    assert [trial.values for trial in proposals._ot_study.trials] == [[0.9, 2.0], [0.5, 1.0], [0.7, 1.2]]
    assert [direction.name for direction in proposals._ot_study.directions] == ["MAXIMIZE", "MINIMIZE"]


def test_further_objectives_are_those_of_the_model_and_one_needs_none():
    metrics = {"validation_loss": 1.5, "validation_accuracy": 0.6, "epoch": 2}
    assert objectives_of(BOTH.settings, metrics) == {"validation_loss": 1.5}
    assert objectives_of(SWEEP.settings, metrics) == {}


def test_the_figure_is_of_the_epoch_that_would_be_kept():
    epochs = [(2.0, 0.5), (1.5, 0.6), (1.7, 0.9), (math.nan, 1.0)]
    by_loss = by_score = {MERIT: -math.inf}
    for score, (loss, accuracy) in zip((0.1, 0.3, 0.3, 0.2), epochs, strict=True):
        metrics = {"validation_loss": loss, "validation_accuracy": accuracy, "validation_accuracy_se": accuracy / 10}
        scored = metrics | {"validation_score": score, "validation_score_se": score / 100}
        by_loss, by_score = kept_of(by_loss, metrics), kept_of(by_score, scored)
    assert by_loss == {MERIT: -1.5, JUDGED: 0.6, JUDGED_SE: 0.06}
    assert by_score == {MERIT: 0.3, JUDGED: 0.3, JUDGED_SE: 0.003}
    assert figures_of(metrics) == {JUDGED: 1.0, JUDGED_SE: 0.1}
    assert figures_of(scored) == {JUDGED: 0.2, JUDGED_SE: 0.002}


@pytest.mark.parametrize("scheduler", ["asha", "median", "none"])
def test_schedulers_compare_at_epochs_and_fit_any_number_of_them(scheduler):
    made = scheduler_of(SweepConfig(scheduler=scheduler, grace_epochs=5), epochs=2)
    assert getattr(made, "_time_attr", "epoch") == "epoch"


def test_a_failure_is_told_by_its_own_words():
    own = StageFailed("stage student/0-bayesian failed: the loss is nan in step 3 (rows 1); lower the learning rate")
    for carried in (
        RayTaskError("train", "Traceback ...", own),
        RayTaskError("train", "Traceback ...", own).as_instanceof_cause(),
    ):
        assert reason_of(carried) == str(own)
    assert reason_of(None) == "its process ended"
    assert "figure" not in line_of(FAILED)
    assert line_of(FAILED).startswith("trial 3: failed, the loss is nan; labeling.calibrate ")
    assert line_of(FINISHED).startswith(f"trial 1: finished, epoch 3, {JUDGED} 0.7; labeling.calibrate ")


class TuneTrial:
    """What Tune's callbacks are given of a trial."""

    def __init__(self, name, point, error_file=None):
        self.trial_id, self.config, self.pickled_error_file, self.last_result = name, point, error_file, {}


def test_trials_end_as_finished_stopped_or_failed_in_the_file_the_terminal_and_mlflow(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write_trials(tmp_path, SWEEP, [])
    error = tmp_path / "error.pkl"
    error.write_bytes(pickle.dumps(StageFailed("the loss is nan")))
    console = Console(file=io.StringIO(), width=300)
    with tracked_run("sweep", tmp_path, {}) as tracking:
        tracker = tracking.trackers["mlflow"]
        log = TrialLog(SWEEP, tmp_path, tracking, console, first=5)
        good, stopped, bad = (
            TuneTrial(name, dict(point), file) for name, point, file in zip("abc", POINTS, (None, None, str(error)), strict=False)
        )
        for trial in (good, stopped, bad):
            log.on_trial_start(1, [], trial)
        for trial, epoch, finished in ((good, 1, False), (stopped, 1, False), (good, 2, True)):
            trial.last_result = {
                JUDGED: 0.1 * epoch,
                JUDGED_SE: 0.01 * epoch,
                "epoch": epoch,
                "finished": finished,
                "found": 4,
                "made": 1,
            }
            log.on_trial_result(1, [], trial, trial.last_result)
        log.on_trial_complete(1, [], good)
        log.on_trial_complete(1, [], stopped)
        log.on_trial_error(1, [], bad)
    assert [(t.number, t.status, t.figure, t.standard_error, t.epoch, t.reason) for t in read_trials(tmp_path, SWEEP)] == [
        (5, "finished", 0.2, 0.02, 2, ""),
        (6, "stopped", 0.1, 0.01, 1, ""),
        (7, "failed", None, None, 0, "the loss is nan"),
    ]
    lines = console.file.getvalue().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["trial 5: finished", "trial 6: stopped", "trial 7: failed"]
    runs = {name: tracker.client.get_run(run_id) for name, run_id in tracker.stage_runs.items()}
    assert [run.info.status for run in runs.values()] == ["FINISHED", "FINISHED", "FAILED"]
    assert [run.data.tags["raw2s.status"] for run in runs.values()] == ["finished", "stopped", "failed"]
    assert runs["trial-7"].data.tags["raw2s.reason"] == "the loss is nan"
    live = {f"train/{JUDGED}": 0.1, f"train/{JUDGED_SE}": 0.01}
    assert runs["trial-6"].data.metrics == {JUDGED: 0.1, JUDGED_SE: 0.01, "epoch": 1, **live}
    curve = tracker.client.get_metric_history(runs["trial-5"].info.run_id, f"train/{JUDGED}")
    assert [(point.step, point.value) for point in curve] == [(1, 0.1), (2, 0.2)]
