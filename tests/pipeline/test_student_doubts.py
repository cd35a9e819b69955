"""Every student's doubt in results.json: through all stages of a run with the models replaced, and as figures alone."""

import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from faked_runs import fake_models, model_logits, run_here
from scipy.special import softmax
from sklearn.metrics import log_loss, roc_auc_score
from test_stages import keys_of

from raw2s.errors import ConfigError
from raw2s.evaluation import drawn_utterances, interval
from raw2s.evaluation.metrics import ACCURACY
from raw2s.labeling.units import Answered
from raw2s.pipeline.doubt_figures import (
    BEYOND,
    Doubtful,
    Draws,
    Predicted,
    class_calibration,
    differing,
    disagreement,
    ensemble_of,
    measured_doubts,
    text_calibration,
)

DOUBT = {"batch_size": 12, "resamples": 50, "doubt": True}
CLASS_TASK = {"name": "slurp_scenario", "n_teacher": 48, "n_student": 24, "n_validation": 16, "n_test": 24}


def test_no_other_stage_moves_and_every_student_is_asked():
    without, asked = keys_of(), keys_of(evaluation={"doubt": True})
    assert without.items() <= asked.items()
    tests = {name for name in without if name.startswith(("test/student", "test/cdpo"))}
    assert asked.keys() - without.keys() == {name.replace("test/", "doubt/") for name in tests}
    dropped = keys_of(evaluation={"doubt": True, "dropout_passes": 3})
    assert asked.items() <= dropped.items()
    assert dropped.keys() - asked.keys() == {name.replace("test/", "dropout/") for name in tests}
    more = keys_of(evaluation={"doubt": True, "dropout_passes": 4})
    assert {name for name in more if more[name] != dropped[name]} == dropped.keys() - asked.keys()


@pytest.mark.parametrize("task", [CLASS_TASK, {}], ids=["classes", "text"])
def test_passes_with_dropout_are_two_measures_more(tmp_path, monkeypatch, task):
    fake_models(monkeypatch)
    sections = {"task": task} if task else {}
    results, stages, artifacts = run_here(
        tmp_path, methods=[{"method": "bayesian"}], evaluation=DOUBT | {"dropout_passes": 5}, **sections
    )
    found = {doubt.measure: doubt for doubt in results.students[0].doubt}
    (stage,) = [stage for stage in stages if stage.kind == "dropout"]
    assert (stage.passes, stage.loss.name) == (5, "edl")
    rows = stage.test.predictions(artifacts[stage.test.name].folder)
    wrong = np.array([row["predicted"] != row["gold"] for row in rows])
    for name in ("dropout_entropy", "dropout_mutual_information"):
        assert found[name].auroc == pytest.approx(roc_auc_score(wrong, [row["id"] for row in rows]))


@pytest.mark.parametrize(
    ("asked", "says"), [({"dropout_passes": 1, "doubt": True}, "two or more"), ({"dropout_passes": 9}, "doubt: true")]
)
def test_passes_that_tell_nothing_are_refused(asked, says):
    with pytest.raises(ConfigError, match=says):
        keys_of(evaluation=asked)


def test_classifiers_have_the_measures_that_their_loss_gives_them(tmp_path, monkeypatch):
    fake_models(monkeypatch)
    methods = [{"method": "bayesian"}, {"method": "naive"}]
    results, stages, artifacts = run_here(tmp_path, task=CLASS_TASK, methods=methods, evaluation=DOUBT)
    evidential, softmaxed = ({d.measure: d for d in student.doubt} for student in results.students)
    common = {"probability", "entropy", "teacher_disagreement"}
    assert softmaxed.keys() == common
    assert evidential.keys() == common | {"vacuity", "mutual_information"}

    name = next(stage.name for stage in stages if stage.name.startswith("doubt/student/1"))
    logits = np.load(artifacts[name].folder / "test.npy")
    rows = next(stage for stage in stages if stage.name == name.replace("doubt/", "test/"))
    said = rows.predictions(artifacts[rows.name].folder)
    wrong = np.array([row["predicted"] != row["gold"] for row in said])
    own = softmaxed["probability"]
    assert own.auroc == pytest.approx(roc_auc_score(wrong, -softmax(logits, axis=1).max(axis=1)))
    assert own.risk[-1] == pytest.approx(wrong.mean())
    # The faked teachers all answer alike.
    assert softmaxed["teacher_disagreement"].auroc == 0.5

    calibration = results.students[1].calibration
    assert len(calibration.temperature) == 1
    assert sum(one.answers for one in calibration.reliability) == len(wrong) == results.test_examples
    assert results.students[1].ensemble is None


def test_answers_have_the_measures_of_their_tokens_and_cdpo_leaves_no_dirichlet(tmp_path, monkeypatch):
    fake_models(monkeypatch)
    results, stages, _ = run_here(tmp_path, evaluation=DOUBT)  # bayesian, then cDPO
    for student in results.students:
        measures = {doubt.measure: doubt for doubt in student.doubt}
        assert measures.keys() == {"probability", "entropy", "sequence_probability", "teacher_disagreement"}
        assert measures["entropy"].auroc in (0.5, None)  # the fake's is the same for all
        assert student.calibration.scaled is None
        assert sum(one.answers for one in student.calibration.reliability) == results.test_examples
    losses = {stage.name.split("/")[1]: stage.loss for stage in stages if stage.kind == "doubt"}
    assert losses["student"].name == "edl"
    assert losses["cdpo"] is None


def test_several_seeds_disagree_where_their_students_answers_differ(tmp_path, monkeypatch):
    fake_models(monkeypatch)

    def answers_of(pool, task, prompts, **_):
        """A student of a seed of its own on every other example."""
        own = zlib.crc32(Path(pool.model).parent.name.encode()) if pool.name == "student" else 0
        rows = [{"id": i, "logits": model_logits(i if i % 2 else i + own, len(task.classes))} for i in prompts]
        return Answered(pa.Table.from_pylist(rows), {}, 1.0)

    monkeypatch.setattr("raw2s.labeling.answers.answers_of", answers_of)
    methods = [{"method": "naive"}]
    results, stages, artifacts = run_here(tmp_path, seeds=[1, 2, 3], task=CLASS_TASK, methods=methods, evaluation=DOUBT)
    found = {doubt.measure: doubt for doubt in results.students[0].doubt}["seed_disagreement"]
    tests = [stage for stage in stages if stage.name.startswith("test/student")]
    rows = [stage.predictions(artifacts[stage.name].folder) for stage in tests]
    said = np.array([[row["predicted"] for row in own] for own in rows])
    wrong = said != [row["gold"] for row in rows[0]]
    share = (said[:, None] != said).sum(axis=1) / 2
    assert found.auroc == pytest.approx(np.mean([roc_auc_score(*own) for own in zip(wrong, share, strict=True)]))
    assert found.auroc != 0.5


def test_without_being_asked_nothing_is_said(tmp_path, monkeypatch):
    fake_models(monkeypatch)
    results, _, _ = run_here(tmp_path, task=CLASS_TASK, methods=[{"method": "naive"}])
    assert (results.students[0].doubt, results.students[0].calibration) == ([], None)


def test_teachers_disagree_by_pairs():
    assert disagreement([["a", "a"], ["a", "b"], ["a", "c"]]).tolist() == [0, 1]
    assert disagreement([["a"], ["a"], ["b"]]) == pytest.approx([2 / 3])


def test_a_seed_differs_from_a_share_of_the_others():
    assert differing(["a", "b", "c"], [["a", "a", "a"], ["a", "b", "a"]]).tolist() == [0, 0.5, 1]


def predicted(seed, examples=300, classes=4):
    """A member of an ensemble: the truth's logits and noise of its own."""
    labels = np.random.default_rng(0).integers(classes, size=examples)
    noise = np.random.default_rng(seed).normal(scale=2.0, size=(examples, classes))
    log_p = np.log(softmax(2 * np.eye(classes)[labels] + noise, axis=1))
    return Predicted(log_p_UK=log_p, label_U=labels, log_p_PK=log_p, label_P=labels)


def test_an_ensemble_is_the_mean_of_its_members_and_disagrees_where_they_do():
    members = [predicted(seed) for seed in (1, 2, 3)]
    ensemble, found = ensemble_of(members)
    assert np.exp(ensemble.log_p_UK) == pytest.approx(np.mean([np.exp(m.log_p_UK) for m in members], axis=0))
    assert (found["mutual_information"] <= found["entropy"] + 1e-12).all()
    _, alone = ensemble_of([members[0]] * 3)
    assert alone["mutual_information"] == pytest.approx(0, abs=1e-9)
    # Convexity: the mean's NLL is no more than the members' mean (Lakshminarayanan et al., 2017).
    draws = Draws(draws_RU=drawn_utterances(300, resamples=20), seeds_RS=np.ones((20, 1)))
    single = [class_calibration([m], draws).record.as_is.nll for m in members]
    assert class_calibration([ensemble], draws).record.as_is.nll <= np.mean(single)


def test_a_temperature_never_worsens_what_it_is_fitted_on_and_finds_the_oversure():
    draws = Draws(draws_RU=drawn_utterances(300, resamples=20), seeds_RS=np.ones((20, 1)))
    found = class_calibration([predicted(1)], draws).record
    assert found.scaled.nll <= found.as_is.nll + 1e-9
    assert found.temperature[0] > 1  # of the logits half is noise
    assert found.as_is.nll_ci95[0] < found.as_is.nll < found.as_is.nll_ci95[1]


def test_figures_are_means_over_the_seeds_and_paired_with_the_runs_resamples():
    random = np.random.default_rng(0)
    error = random.random(80) < 0.4
    seeds = [
        Doubtful(doubts={"entropy": random.random(80) + error * lift}, error_U=error, counts_UC=1.0 - error[:, None])
        for lift in (0.1, 2.0)
    ]
    draws = Draws(draws_RU=drawn_utterances(80, resamples=200), seeds_RS=np.full((200, 2), 0.5))
    ((both, _, gain_R),) = measured_doubts(seeds, ACCURACY.score, draws)
    one = Draws(draws_RU=draws.draws_RU, seeds_RS=np.ones((200, 1)))
    alone = [measured_doubts([own], ACCURACY.score, one)[0].record.auroc for own in seeds]
    assert both.auroc == pytest.approx(np.mean(alone))
    assert alone[1] == 1
    assert both.auroc_ci95[0] < both.auroc < both.auroc_ci95[1]
    assert both.gain_80_ci95 == interval(gain_R)


def test_a_text_is_calibrated_where_answers_are_right_as_often_as_they_are_likely():
    random = np.random.default_rng(0)
    chance = random.uniform(0.1, 0.9, size=5000)
    error = random.random(5000) > chance
    one = Draws(draws_RU=drawn_utterances(5000, resamples=20), seeds_RS=np.ones((20, 1)))
    seeds = {
        name: Doubtful(doubts={"sequence_probability": doubt}, error_U=error, counts_UC=1.0 - error[:, None])
        for name, doubt in {"own": -np.log(chance), "sure": np.full(5000, 1e-30), "lost": np.full(5000, 1e4)}.items()
    }
    own, sure, lost = (text_calibration([seeds[name]], one).record.as_is for name in seeds)
    assert own.rms_ce < 0.02
    assert sure.ece == pytest.approx(error.mean())
    assert lost.ece == pytest.approx(1 - error.mean())
    assert own.brier < min(sure.brier, lost.brier)
    assert own.nll == pytest.approx(-np.mean(np.where(error, np.log(1 - chance), np.log(chance))))
    assert np.isfinite(lost.nll)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.7])
def test_a_text_that_says_how_often_it_is_right_has_no_nll_beyond_that_however_often_it_is_wrong(share):
    """Log-loss against scikit-learn's; a student that is wrong more often has less NLL of the same ignorance."""
    error = np.arange(1000) < 1000 * share
    one = Draws(draws_RU=drawn_utterances(1000, resamples=200), seeds_RS=np.ones((200, 1)))
    blind = Doubtful(
        doubts={"sequence_probability": np.full(1000, -np.log(1 - share))}, error_U=error, counts_UC=1.0 - error[:, None]
    )
    calibrated = text_calibration([blind], one)
    beyond, samples = calibrated.nll[BEYOND]
    assert calibrated.record.as_is.nll == pytest.approx(log_loss(~error, np.full(1000, 1 - share)))
    assert beyond == pytest.approx(0, abs=1e-9)
    assert samples.min() > -1e-9 and samples.mean() < 0.002  # of other test sets the constant is not the best one
