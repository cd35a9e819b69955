"""A training stage that goes wrong under Ray Train: one sentence, and no second try."""

import json
import re
from pathlib import Path

import pytest
from plain_workers import case

from raw2s.errors import StageFailed
from raw2s.labels.rows import TextTarget, TrainingRow
from raw2s.training.fit import fit
from raw2s.training.progress import read_progress

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


def test_a_loss_that_is_no_number_names_step_rows_and_the_last_good_checkpoint(local_ray, tmp_path):
    (tmp_path / "out").mkdir()
    rows = tmp_path / "out" / "rows.jsonl"
    with rows.open("w") as file:
        for i in range(8):
            target = TextTarget(text=f'{{ "time" : "{i} am" }}', weights=[1.0])
            file.write(json.dumps(TrainingRow(id=100 + i, prompt=f"wake me up at {i}\n", targets=[target])) + "\n")
    wild = case(tmp_path / "unused", rows, learning_rate=1e30, checkpoint_every=1, max_grad_norm=0, epochs=4)
    with pytest.raises(StageFailed, match=r"in step \d+ \(rows 10\d") as failure:
        fit(wild.job, tmp_path / "out", tmp_path / "parts", board=None)
    found = re.search(r"the last good checkpoint is of step (\d+), (\S+)$", str(failure.value))
    assert found is not None
    progress = read_progress(Path(found[2]))
    assert progress.step == int(found[1]) == len(progress.history)
