"""A worker killed while a checkpoint is written: the run goes on and ends with the weights of one left alone."""

import json
import random

import kills
import pytest
from plain_workers import Case, train_without_ray

from raw2s.training.progress import read_progress

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_a_killed_run_ends_with_the_weights_of_one_left_alone(tmp_path):
    killed = kills.run(tmp_path / "killed", ["mid-checkpoint"], random.Random(1), rows=24)
    assert [kill["kind"] for kill in killed["kills"]] == ["mid-checkpoint"]
    kills.prepare(tmp_path / "alone", 24)
    alone = Case(kills.job(tmp_path / "alone"), tmp_path / "alone" / "reports")
    train_without_ray([alone], workers=2)
    history = read_progress(alone.last).history
    (alone.last / "history.jsonl").write_text("".join(json.dumps(point) + "\n" for point in history))
    assert [killed["weights"], killed["curve"]] == kills.checksums(alone.last)
