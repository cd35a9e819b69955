"""The training loop in plain processes: what it does without Ray around it, several jobs one after another."""

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from ranks import run_ranks
from safetensors.torch import load_file

from raw2s.config import TrainingConfig
from raw2s.decoding.beams import generate_beams
from raw2s.errors import StageFailed
from raw2s.evaluation.metrics import Metric
from raw2s.labels.rows import RowKind
from raw2s.methods import LossSection
from raw2s.methods.cross_entropy import CrossEntropySection
from raw2s.methods.learned import LearnedWeights
from raw2s.models.load import load_model, load_tokenizer
from raw2s.tasks import Example, Scoring
from raw2s.training.fit import CHANGED, STOPPED, WORKER_ENV
from raw2s.training.job import Job, Judge
from raw2s.training.progress import read_progress
from raw2s.training.sums import CheckpointChanged

PLAIN = CrossEntropySection()


def checksums(gold: Sequence[str], predicted: Sequence[str]) -> np.ndarray:
    """(U, 1): a number in [0, 1] that every change of an answer changes, and no learning favours."""
    return np.array(
        [[int(hashlib.md5(f"{g}: {p}".encode()).hexdigest()[:8], 16) / 2**32] for g, p in zip(gold, predicted, strict=True)]
    )


def only(counts: np.ndarray) -> np.ndarray:
    return counts[..., 0]


def judge_of(prompts: Sequence[str], *, max_new_tokens: int | None) -> Judge:
    """A judge whose scores rise and fall from epoch to epoch."""
    metric = Metric(name="checksum", title="checksum", counts=checksums, score=only)
    examples = [Example(id=i, prompt=prompt, target="", gold=str(i)) for i, prompt in enumerate(prompts)]
    return Judge(scoring=Scoring(metric=metric, parse=str, nothing=""), examples=examples, max_new_tokens=max_new_tokens)


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

    def best(self) -> tuple[Path, float]:
        """The report with the highest score, of equal ones the first, and that score."""
        points = [point for point in read_progress(self.last).history if "validation_score" in point]
        point = max(points, key=lambda point: point["validation_score"])
        return self.step(int(point["step"])), point["validation_score"]

    def score_of(self, folder: Path) -> float:
        """Of greedy answers by the model that lies there, loaded by itself, all prompts at once."""
        judge = self.job.judge
        assert judge is not None and judge.max_new_tokens is not None
        model, tokenizer = load_model(str(folder), "text"), load_tokenizer(str(folder))
        prompts = [example["prompt"] for example in judge.examples]
        found = generate_beams(model, tokenizer, prompts, beams=1, max_new_tokens=judge.max_new_tokens)
        return judge.scoring.score([e["gold"] for e in judge.examples], [c[0].text for c in found]).score

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
    classes: tuple[str, ...] = (),
    **training: Any,
) -> Case:
    """A job over the rows in a file; it writes text where there are no classes."""
    job = Job(
        name="student/0-test",
        model=model,
        task="slurp_slots",
        form="classes" if classes else "text",
        classes=classes,
        rows=kind,
        train_file=str(rows),
        validation_file=str(validation or rows),
        training=TrainingConfig(**{"epochs": 2, "batch_size": 4, "micro_batch_size": 2, "checkpoint_every": None} | training),
        loss=loss,
        seed=7,
        learned=learned,
    )
    return Case(job, out, checkpoint)


def judged_by(judge: Judge, one: Case) -> Case:
    """The same job, its epochs judged by the score."""
    training = one.job.training.model_copy(update={"keep": "best", "judge": "score"})
    return dataclasses.replace(one, job=dataclasses.replace(one.job, judge=judge, training=training))


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
        except CheckpointChanged as error:
            (one.out / CHANGED).write_text(str(error))
