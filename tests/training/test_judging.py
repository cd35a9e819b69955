"""What judges a model in training: which examples, how they are shared out, and what is no score."""

import dataclasses
import math

import cloudpickle
import numpy as np
import pytest
from faked_runs import fake_models, run_here
from plain_workers import case, judge_of, judged_by

from raw2s.decoding.beams import Candidate
from raw2s.errors import StageFailed
from raw2s.models.load import load_model_config, load_tokenizer
from raw2s.tasks import task_of
from raw2s.tasks.slurp_slots import SlotsSection
from raw2s.training import judging
from raw2s.training.job import Job

PROMPTS = ["play some jazz\n", "stop\n", "wake me at nine tomorrow\n", "lights off\n", "more\n"]
DECODED = {"student_training": {"keep": "best", "judge": "score", "judged_examples": 5}}
NAIVE = {"methods": [{"method": "naive"}]}


@pytest.fixture
def job(tmp_path) -> Job:
    one = case(tmp_path, tmp_path / "rows.jsonl", micro_batch_size=1, batch_size=4)
    return judged_by(judge_of(PROMPTS, max_new_tokens=8), one).job


@pytest.fixture
def jobs(monkeypatch) -> list[Job]:
    """Those that the stages of a run hand to training."""
    found: list[Job] = []
    fake_models(monkeypatch)
    monkeypatch.setattr("raw2s.training.fit.fit", lambda job, *_, **__: found.append(job) or {"final_loss": 0.0})
    return found


def test_unparsable_answers_are_scored_as_tests_score_them():
    scoring = task_of(SlotsSection()).scoring
    gold = [[["time", "nine am"]], [], [["person", "ann"]]]
    scored = scoring.score(gold, ['{ "time" : "nine am" }', "{}", "no json"])
    assert scored.predicted == [[["time", "nine am"]], [], []]
    assert scored.parsed[2] is None and scored.parsed[1] == []
    assert scored.score == pytest.approx(2 / 3)  # one hit, one miss
    assert scored.counts.shape[0] == 3


def test_every_example_is_decoded_once_whoever_decodes(job, monkeypatch):
    """Each rank decodes its share; together they score all answers, each in its example's place."""
    asked: list[str] = []
    rest: dict[int, str] = {}

    def echo(model, tokenizer, prompts, **how):
        asked.extend(prompts)
        return [[Candidate(prompt.upper(), -1.0, 1, True)] for prompt in prompts]

    def share(shares, own):
        shares[:] = [own, rest]

    monkeypatch.setattr(judging, "generate_beams", echo)
    monkeypatch.setattr(judging.dist, "all_gather_object", share)
    alone = judging.decoded_score(job, None, None, rank=0, workers=1)
    assert sorted(asked) == sorted(PROMPTS)
    assert alone == judging.judged(job.judge, [prompt.upper() for prompt in PROMPTS])
    assert 0 < alone["validation_score_se"] < 0.5
    asked.clear()
    first, second = judging.decoding_batches(job.judge.examples, judging.MICRO_BATCHES_AT_ONCE)
    rest = {i: PROMPTS[i].upper() for i in second}
    assert judging.decoded_score(job, None, None, rank=0, workers=2) == alone
    assert asked == [PROMPTS[i] for i in first]


def test_a_score_that_is_no_number_stops_the_stage(job):
    metric = dataclasses.replace(job.judge.scoring.metric, score=lambda counts: np.float64(math.nan))
    judge = dataclasses.replace(job.judge, scoring=dataclasses.replace(job.judge.scoring, metric=metric))
    with pytest.raises(StageFailed, match="the metric checksum gives nan on devel; mend it, or set judge: loss"):
        judging.judged(judge, PROMPTS)


def test_an_example_too_long_to_decode_is_named_before_training(job):
    tokenizer, config = load_tokenizer("tiny-gpt2"), load_model_config("tiny-gpt2")
    judging.check_room(job, tokenizer, config)
    longer = dataclasses.replace(job, judge=judge_of(["stop\n", "wake me " * 500], max_new_tokens=8))
    with pytest.raises(ValueError, match=r"validation example 1 with 8 new tokens: .* do not fit"):
        judging.check_room(longer, tokenizer, config)


def test_the_same_texts_judge_every_stage(tmp_path, jobs):
    run_here(tmp_path, **DECODED, **NAIVE)
    judges = [job.judge for job in jobs if job.training.judge == "score"]
    assert len(judges) == 2, "the student's and the ceiling's"
    assert judges[0].examples == judges[1].examples and len(judges[0].examples) == 5
    assert judges[0].max_new_tokens == 24
    assert all(job.judge is None for job in jobs if job.training.judge == "loss")


def test_all_validation_examples_of_classes_judge_and_the_job_travels(tmp_path, jobs):
    task = {"name": "slurp_scenario", "n_teacher": 48, "n_student": 24, "n_validation": 16}
    run_here(tmp_path, **DECODED, **NAIVE, task=task)
    (job, *_) = [job for job in jobs if job.judge is not None]
    assert len(job.judge.examples) == 16 and job.judge.max_new_tokens is None
    gold = [example["gold"] for example in job.judge.examples]
    assert cloudpickle.loads(cloudpickle.dumps(job)).judge.scoring.score(gold, gold).score == 1.0
