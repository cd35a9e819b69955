"""The driver's side of training: one Ray Train run of `train_worker`, and where its kept weights are."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray.train
from ray.train import UserCallback
from ray.train.torch import TorchTrainer

from raw2s.training.job import Job

# Without this DeepSpeed probes for GPUs by compiling; on a GPU machine it finds CUDA by itself.
WORKER_ENV = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


def fit(job: Job, out: Path, callbacks: Sequence[UserCallback] = ()) -> dict[str, Any]:
    """Train, and leave `model/` (a Hugging Face folder), `history.jsonl` and the rows in `out`. Returns the metrics.

    Ray Train resumes a run of the same name and folder without a word, with its old metrics: the folder is `out`, which is
    new for every attempt. Raises what the workers raised.
    """
    training = job.training
    ray_folder = out / "ray"
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"job": job},
        scaling_config=ray.train.ScalingConfig(
            num_workers=training.workers,
            use_gpu=training.gpus_per_worker > 0,
            resources_per_worker={
                "CPU": training.cpus_per_worker,
                **({"GPU": training.gpus_per_worker} if training.gpus_per_worker else {}),
            },
        ),
        run_config=ray.train.RunConfig(  # type: ignore[call-arg]  # mypy reads Train V1's
            name="train",
            storage_path=str(ray_folder),
            callbacks=list(callbacks),  # type: ignore[arg-type]
            worker_runtime_env={"env_vars": WORKER_ENV | ({} if training.gpus_per_worker else {"DS_ACCELERATOR": "cpu"})},
            checkpoint_config=ray.train.CheckpointConfig(
                num_to_keep=1,
                checkpoint_score_attribute="validation_loss" if training.keep == "best" else None,
                checkpoint_score_order="min",
            ),
        ),
    )
    result = trainer.fit()
    assert result.metrics is not None and result.best_checkpoints, "a run that raised nothing has reported its weights"
    kept, metrics = (
        result.best_checkpoints[-1]
        if training.keep == "last"
        else min(result.best_checkpoints, key=lambda pair: pair[1]["validation_loss"])
    )
    os.replace(kept.path, out / "model")
    history = result.metrics["history"]
    (out / "history.jsonl").write_text("".join(json.dumps(point) + "\n" for point in history))
    shutil.rmtree(ray_folder)
    losses = [point["loss"] for point in history if "loss" in point]
    validation = {name: value for name, value in metrics.items() if name.startswith("validation_")}
    return {"final_loss": losses[-1], "epoch_kept": metrics["epoch"] + 1, **validation}


def _worker(settings: dict[str, Any]) -> None:
    from raw2s.training.loop import train_worker  # the driver needs no DeepSpeed, which takes seconds to import  # noqa: PLC0415

    train_worker(settings)
