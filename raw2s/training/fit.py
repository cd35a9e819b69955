"""The driver's side of training: one Ray Train run of `train`, and where its kept weights are."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
from ray.train import UserCallback
from ray.train.torch import TorchTrainer

from raw2s.config import TrainingConfig
from raw2s.errors import StageFailed
from raw2s.imports import bulk_imports, without
from raw2s.training.job import Job
from raw2s.training.progress import EXPORTED, MODEL, WEIGHT, read_progress
from raw2s.training.sums import CheckpointChanged

# Without this DeepSpeed probes for GPUs by compiling; on a GPU machine it finds CUDA by itself.
WORKER_ENV = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
STOPPED = "stopped.txt"
"""Why a worker gave up. Ray Train starts lost workers again; these must not try once more."""
CHANGED = "changed.txt"
"""What was found in a checkpoint that is not as it was written. Training begins again without it."""


def fit(
    job: Job, out: Path, parts: Path, *, board: Any, warn: Callable[[str], None], callbacks: Sequence[UserCallback] = ()
) -> dict[str, Any]:
    """Train, and leave `model/` (a Hugging Face folder) and `history.jsonl` in `out`. Returns the metrics.

    Checkpoints lie in `parts`, where a run of the same job that was cut off resumes: Ray Train resumes a run of the same folder and
    name without a word. One that is not as it was written is not loaded: `warn` hears of it, and training begins again. `board` is a
    `raw2s.pipeline.progress.Board` actor, or None. Raises StageFailed for what would come again, and what the workers raised last.
    """
    folder = parts / "train"
    _drop_if_torn(folder)
    result = _trainer(job, parts, board, callbacks).fit()
    changed = _beside_rows(job, CHANGED)
    if changed.exists():
        warn(f"{job.name}: {changed.read_text(encoding='utf-8')}; it is not loaded, training begins again")
        changed.unlink()
        shutil.rmtree(folder)
        result = _trainer(job, parts, board, callbacks).fit()
    checkpoint = None if result.checkpoint is None else Path(result.checkpoint.path)
    progress = read_progress(checkpoint)
    stopped = _beside_rows(job, STOPPED)
    if stopped.exists():
        reason = stopped.read_text(encoding="utf-8")
        if checkpoint is None:
            raise StageFailed(f"{reason}; no checkpoint was written before")
        raise StageFailed(f"{reason}; the last good checkpoint is of step {progress.step}, {checkpoint}")
    assert result.checkpoint is not None and result.metrics is not None, "a run that raised nothing has reported its last step"
    kept, metrics = result.checkpoint, result.metrics
    if job.training.keep == "best":
        kept, metrics = max(result.best_checkpoints or [], key=lambda pair: pair[1][EXPORTED])
    (out / "history.jsonl").write_text("".join(json.dumps(point) + "\n" for point in progress.history))
    os.replace(Path(kept.path) / MODEL, out / MODEL)
    shutil.rmtree(folder)
    validation = {name: value for name, value in metrics.items() if name.startswith("validation_")}
    weights = {} if job.learned is None else dict(zip(job.learned.teachers, progress.weights, strict=True))
    losses = [point["loss"] for point in progress.history if "loss" in point]
    return {
        "final_loss": losses[-1],
        "epoch_kept": metrics["epoch"],
        **validation,
        **{WEIGHT + name: weight for name, weight in weights.items()},
        "tokens_per_second": result.metrics["tokens_per_second"],
    }


def _trainer(job: Job, storage: Path, board: Any, callbacks: Sequence[UserCallback]) -> TorchTrainer:
    training = job.training
    gpus = {"GPU": training.gpus_per_worker} if training.gpus_per_worker else {}
    return TorchTrainer(
        _worker,
        train_loop_config={"job": job, "board": board},
        scaling_config=ray.train.ScalingConfig(
            num_workers=training.workers,
            use_gpu=training.gpus_per_worker > 0,
            resources_per_worker={"CPU": training.cpus_per_worker, **gpus},
        ),
        run_config=ray.train.RunConfig(  # type: ignore[call-arg]  # mypy reads Train V1's
            name="train",
            storage_path=str(storage),
            callbacks=list(callbacks),  # type: ignore[arg-type]
            worker_runtime_env={"env_vars": WORKER_ENV | ({} if gpus else {"DS_ACCELERATOR": "cpu"})},
            failure_config=ray.train.FailureConfig(max_failures=training.max_failures),
            checkpoint_config=_checkpoint_config(training),
        ),
    )


def _checkpoint_config(training: TrainingConfig) -> ray.train.CheckpointConfig:
    """The latest checkpoint, and the one with the best model so far."""
    if training.keep == "last":
        return ray.train.CheckpointConfig(num_to_keep=1)
    return ray.train.CheckpointConfig(num_to_keep=1, checkpoint_score_attribute=EXPORTED)


def _drop_if_torn(folder: Path) -> None:
    """Delete a run whose list of checkpoints was cut off in writing: Ray Train would refuse it for ever. It starts anew."""
    for snapshot in folder.glob("*snapshot*.json"):
        try:
            json.loads(snapshot.read_text())
        except ValueError:
            shutil.rmtree(folder)
            return


def _worker(settings: dict[str, Any]) -> None:
    """What Ray Train runs in every worker process."""
    with bulk_imports(), without("mlflow"):  # DeepSpeed's autotuner would take it along
        from raw2s.forking.threads import use_own_threads  # noqa: PLC0415
        from raw2s.models.load import quiet_transformers  # noqa: PLC0415
        from raw2s.training.loop import train  # the driver needs no DeepSpeed, which takes seconds to import  # noqa: PLC0415

    use_own_threads()
    quiet_transformers()
    job: Job = settings["job"]
    stopped = _beside_rows(job, STOPPED)
    if stopped.exists():
        return  # the attempt before met what this one would meet again
    context = ray.train.get_context()
    found = ray.train.get_checkpoint()
    try:
        with found.as_directory() if found is not None else nullcontext() as folder:
            checkpoint = None if folder is None else Path(folder)
            rank, workers = context.get_world_rank(), context.get_world_size()
            train(
                job, rank, workers, checkpoint=checkpoint, report=_report, publish=partial(_publish, settings["board"], job.name)
            )
    except CheckpointChanged as error:
        _beside_rows(job, CHANGED).write_text(str(error), encoding="utf-8")  # all ranks the same; not raised, to be no failure
    except (StageFailed, ValueError) as error:
        stopped.write_text(" ".join(str(error).split()), encoding="utf-8")
        raise


def _beside_rows(job: Job, name: str) -> Path:
    """Where driver and workers see it."""
    return Path(job.train_file).parent / name


def _publish(board: Any, name: str, step: int, total_steps: int, note: str, point: dict[str, float] | None) -> None:
    """To the board, which shows the step, and passes a point of the curve on to MLflow."""
    if board is None:
        return
    if note:
        board.update.remote(name, step, total_steps, note)
    if point is not None:
        board.record.remote(name, point)


def _report(metrics: dict[str, Any], folder: Path) -> None:
    """This rank's part of a checkpoint, uploaded while training goes on; Ray Train deletes the folder afterwards."""
    ray.train.report(
        metrics,
        checkpoint=ray.train.Checkpoint.from_directory(folder),
        checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
    )
