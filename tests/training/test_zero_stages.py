"""ZeRO stages 0-3 with two CPU workers: the same fp32 curve as one worker, and a folder anybody can load."""

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from raw2s.config import TrainingConfig
from raw2s.training.fit import fit
from raw2s.training.job import Job, LossSettings
from raw2s.training.rows import TextTarget, TrainingRow

pytestmark = [pytest.mark.slow, pytest.mark.timeout(700)]

# 11 rows in steps of 4: the last step is short, and its second worker has less than the first.
ROWS = [
    TrainingRow(id=i, prompt=f"wake me up at {w} am\n", targets=[TextTarget(text=f'{{"time": "{w} am"}}', weights=[1.0])])
    for i, w in enumerate(["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"])
]


def curve(folder: Path, workers: int, zero_stage: int) -> list[float]:
    out = folder / f"{workers}-{zero_stage}"
    out.mkdir(parents=True)
    file = out / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    training = TrainingConfig(epochs=2, batch_size=4, micro_batch_size=2, workers=workers, zero_stage=zero_stage, keep="best")
    job = Job("tiny-gpt2", "generation", (), "supervised", str(file), str(file), training, LossSettings(), 7, None, "test")
    metrics = fit(job, out)
    assert metrics["epoch_kept"] == 2
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return [point["validation_loss"] for point in history if "validation_loss" in point]


def test_stages_and_worker_counts_agree(local_ray, tmp_path):
    reference = curve(tmp_path, workers=1, zero_stage=0)
    assert reference[1] < reference[0], "it learns"
    for stage in (0, 1, 2, 3):
        assert curve(tmp_path, workers=2, zero_stage=stage) == pytest.approx(reference, abs=1e-5), f"ZeRO {stage}"
    for folder in (tmp_path / "1-0", tmp_path / "2-3"):
        model = AutoModelForCausalLM.from_pretrained(folder / "model")
        assert sum(p.numel() for p in model.parameters()) == 344_448
        assert AutoTokenizer.from_pretrained(folder / "model").eos_token == "<|endoftext|>"
    one, partitioned = (
        dict(AutoModelForCausalLM.from_pretrained(tmp_path / name / "model").named_parameters()) for name in ("1-0", "2-3")
    )
    assert all((one[name] - partitioned[name]).abs().max() < 1e-4 for name in one)
