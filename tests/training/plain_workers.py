"""The training loop in plain processes: what it does without Ray around it, several jobs one after another."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from ranks import run_ranks
from safetensors.torch import load_file

from raw2s.config import TrainingConfig
from raw2s.errors import StageFailed
from raw2s.labels.rows import RowKind
from raw2s.methods import LossSection
from raw2s.methods.cross_entropy import CrossEntropySection
from raw2s.methods.learned import LearnedWeights
from raw2s.training.fit import STOPPED, WORKER_ENV
from raw2s.training.job import Job
from raw2s.training.progress import read_progress

PLAIN = CrossEntropySection()


@dataclass(frozen=True)
class Case:
    """One job; its reports go to `out`/step-<n>, its failure to `out`/stopped.txt."""

    job: Job
    out: Path
    checkpoint: Path | None = None

    def step(self, step: int) -> Path:
        return self.out / f"step-{step}"

    @property
    def last(self) -> Path:
        return max(self.out.glob("step-*"), key=lambda folder: int(folder.name[5:]))

    def curve(self, name: str = "loss") -> list[float]:
        return [point[name] for point in read_progress(self.last).history if name in point]

    def weights(self) -> dict[str, torch.Tensor]:
        return load_file(self.last / "model" / "model.safetensors")


def case(
    out: Path,
    rows: Path,
    *,
    kind: RowKind = "targets",
    loss: LossSection = PLAIN,
    model: str = "tiny-gpt2",
    checkpoint: Path | None = None,
    validation: Path | None = None,
    learned: LearnedWeights | None = None,
    **training: Any,
) -> Case:
    """A job that writes text, over the rows in a file."""
    job = Job(
        name="student/0-test",
        model=model,
        task="slurp_slots",
        form="text",
        classes=(),
        rows=kind,
        train_file=str(rows),
        validation_file=str(validation or rows),
        training=TrainingConfig(**{"epochs": 2, "batch_size": 4, "micro_batch_size": 2, "checkpoint_every": None} | training),
        loss=loss,
        seed=7,
        learned=learned,
    )
    return Case(job, out, checkpoint)


def train_without_ray(cases: list[Case], workers: int) -> None:
    """Every case in the same `workers` processes."""
    run_ranks(_train, workers, cases, workers)


def _train(rank: int, cases: list[Case], workers: int) -> None:
    os.environ |= WORKER_ENV
    from raw2s.training.loop import train

    for one in cases:

        def report(metrics: dict[str, Any], folder: Path, case: Case = one) -> None:
            shutil.copytree(folder, case.step(metrics["step"]), dirs_exist_ok=True)
            shutil.rmtree(folder)
            torch.distributed.barrier()

        one.out.mkdir(parents=True, exist_ok=True)
        try:
            train(one.job, rank, workers, checkpoint=one.checkpoint, report=report, publish=lambda *_: None)
        except StageFailed as error:
            (one.out / STOPPED).write_text(str(error))
