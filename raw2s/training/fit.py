"""The driver's side of training: one Ray Train run of `train`, and where its kept weights are."""

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
from ray.exceptions import RayActorError
from ray.train import UserCallback
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
)  # nothing public tells
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError

from raw2s.causes import is_full_disk
from raw2s.config import TrainingConfig
from raw2s.errors import StageFailed
from raw2s.imports import bulk_imports, without
from raw2s.storage import Place, place
from raw2s.storage.copies import here
from raw2s.storage.files import copy, copy_here, exists, files_in, filesystem, read, remove, write
from raw2s.training.job import Job
from raw2s.training.progress import EXPORTED, MODEL, PROGRESS_FILE, WEIGHT, read_progress
from raw2s.training.scratch import scratch, sweep
from raw2s.training.sums import CheckpointChanged

# Without this DeepSpeed probes for GPUs by compiling; on a GPU machine it finds CUDA by itself.
WORKER_ENV = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
STOPPED = "stopped.txt"
"""Why a worker gave up. Lost workers are started again; these must not try once more."""
CHANGED = "changed.txt"
"""What was found in a checkpoint that is not as it was written. Training begins again without it."""


Places = Callable[[TrainingConfig], int]
"""How many of a training's workers the cluster holds, busy or not."""


def fit(
    job: Job,
    out: Path,
    parts: Place,
    *,
    board: Any,
    warn: Callable[[str], None],
    places: Places,
    callbacks: Sequence[UserCallback] = (),
) -> dict[str, Any]:
    """Train, and leave `model/` (a Hugging Face folder) and `history.jsonl` in `out`. Returns the metrics.

    Checkpoints lie in `parts`, where a run of the same job that was cut off resumes: Ray Train resumes a run of the same folder and
    name without a word. They stay, the model among them: only once `out` is published may the caller remove them. One that is not as it was written is not loaded: `warn` hears of it, and training begins again. Where nodes have
    gone, so that `places` is less than the job's workers, it goes on with fewer. `board` is a `raw2s.pipeline.progress.Board` actor,
    or None. Raises StageFailed for what would come again, and what the workers raised last.
    """
    folder, stopped, changed = parts / "train", parts / STOPPED, parts / CHANGED
    _drop_if_broken(folder)
    for left in (stopped, changed):  # by an attempt that was killed
        remove(left)
    seen = _seen_by_workers(job, parts)

    def trainer(workers: int, patient: bool) -> TorchTrainer:
        return _trainer(seen, parts, board, callbacks, workers, patient)

    result = _fitted(job, trainer, warn, places)
    if (what := read(changed)) is not None:
        warn(f"{job.name}: {what.decode()}; it is not loaded, training begins again")
        remove(changed)
        remove(folder)
        result = _fitted(job, trainer, warn, places)
    checkpoint = None if result.checkpoint is None else _place_of(result.checkpoint, parts)
    progress = read_progress(checkpoint)
    if (why := read(stopped)) is not None:
        remove(stopped)
        reason = why.decode()
        if checkpoint is None:
            raise StageFailed(f"{reason}; no checkpoint was written before")
        raise StageFailed(f"{reason}; the last good checkpoint is of step {progress.step}, {checkpoint}")
    assert result.checkpoint is not None and result.metrics is not None, "a run that raised nothing has reported its last step"
    kept, metrics = result.checkpoint, result.metrics
    if job.training.keep == "best":
        kept, metrics = max(result.best_checkpoints or [], key=lambda pair: pair[1][EXPORTED])
    (out / "history.jsonl").write_text("".join(json.dumps(point) + "\n" for point in progress.history))
    copy_here(filesystem(_place_of(kept, parts) / MODEL), out / MODEL)
    validation = {name: value for name, value in metrics.items() if name.startswith("validation_")}
    weights = {} if job.learned is None else dict(zip(job.learned.teachers, progress.weights, strict=True))
    losses = [point["loss"] for point in progress.history if "loss" in point]
    return {
        "final_loss": losses[-1],
        **({"world_sizes": progress.world_sizes} if len(progress.world_sizes) > 1 else {}),
        "epoch_kept": metrics["epoch"],
        **validation,
        **{WEIGHT + name: weight for name, weight in weights.items()},
        "tokens_per_second": result.metrics["tokens_per_second"],
    }


def _seen_by_workers(job: Job, parts: Place) -> Job:
    """The job with its rows where the workers read them: beside the checkpoints, where those are on no disk."""
    if isinstance(parts, Path):
        return job

    def sent(file: str) -> str:
        beside = parts / "rows" / Path(file).name
        write(beside, Path(file).read_bytes())
        return str(beside)

    return replace(job, train_file=sent(job.train_file), validation_file=sent(job.validation_file))


def _place_of(checkpoint: ray.train.Checkpoint, parts: Place) -> Place:
    if isinstance(parts, Path):
        return Path(checkpoint.path)
    return parts / checkpoint.path.removeprefix(filesystem(parts)[1]).strip("/")


def _fitted(
    job: Job, trainer: Callable[[int, bool], TorchTrainer], warn: Callable[[str], None], places: Places
) -> ray.train.Result:
    """What a run ends with whose workers may die `max_failures` times, and whose nodes may go for good.

    Before a failure it waits for its place as long as the cluster is busy; after one, the cluster may be smaller.
    """
    workers, failures = job.training.workers, 0
    while True:
        try:
            return trainer(workers, failures == 0).fit()
        except (TrainingFailedError, RayActorError) as error:  # of a controller that died, the second
            why = error.controller_failure if isinstance(error, ControllerError) else error
            if not isinstance(why, WorkerGroupStartupTimeoutError):
                failures += 1
                lost = isinstance(why, (WorkerGroupError, WorkerGroupStartupFailedError, RayActorError))
                if not lost or failures > job.training.max_failures or is_full_disk(error):
                    raise
            elif (held := places(job.training)) < workers:
                workers = _workers_left(job.training, held)
                warn(
                    f"{job.name}: the cluster has lost nodes and holds {held} of {job.training.workers} training workers; it goes on "
                    f"at its last checkpoint with {workers}"
                )


def _workers_left(training: TrainingConfig, held: int) -> int:
    """The most workers, `held` at most, among whom a step's rows can be dealt out. Raises StageFailed where none is held."""
    if not held:
        raise StageFailed(
            "the cluster has lost nodes, and none that is left holds a training worker; bring one back, and run again: training goes on "
            "at its last checkpoint"
        )
    return next(n for n in range(held, 0, -1) if training.batch_size % (n * training.micro_batch_size) == 0)


def _trainer(job: Job, parts: Place, board: Any, callbacks: Sequence[UserCallback], workers: int, patient: bool) -> TorchTrainer:
    """That gives up at the first death of a worker; and, unless it is `patient`, where Ray has no place for `workers` in a minute."""
    training = job.training
    system, path = filesystem(parts)
    gpus = {"GPU": training.gpus_per_worker} if training.gpus_per_worker else {}
    return TorchTrainer(
        _worker,
        train_loop_config={"job": job, "board": board, "stopped": str(parts / STOPPED), "changed": str(parts / CHANGED)},
        scaling_config=ray.train.ScalingConfig(  # type: ignore[call-arg]  # mypy reads Train V1's
            num_workers=workers,
            use_gpu=training.gpus_per_worker > 0,
            resources_per_worker={"CPU": training.cpus_per_worker, **gpus},
            label_selector=training.label_selector or None,
        ),
        run_config=ray.train.RunConfig(  # type: ignore[call-arg]  # mypy reads Train V1's
            name="train",
            storage_path=path,
            storage_filesystem=None if isinstance(parts, Path) else system,
            callbacks=list(callbacks),  # type: ignore[arg-type]
            worker_runtime_env={"env_vars": WORKER_ENV | ({} if gpus else {"DS_ACCELERATOR": "cpu"})},
            failure_config=ray.train.FailureConfig(max_failures=0, controller_failure_limit=-1 if patient else 0),  # type: ignore[call-arg]
            checkpoint_config=_checkpoint_config(training),
        ),
    )


def _checkpoint_config(training: TrainingConfig) -> ray.train.CheckpointConfig:
    """The latest checkpoint, and the one with the best model so far."""
    if training.keep == "last":
        return ray.train.CheckpointConfig(num_to_keep=1)
    return ray.train.CheckpointConfig(num_to_keep=1, checkpoint_score_attribute=EXPORTED)


def _drop_if_broken(folder: Place) -> None:
    """Delete a run whose list of checkpoints was cut off in writing, or lists what is gone: it would fail for ever. It starts anew."""
    for name in files_in(folder, deep=False):
        if "snapshot" in name and name.endswith(".json"):
            try:
                listed = json.loads(read(folder / name) or b"").get("checkpoint_results", [])
            except ValueError:
                remove(folder)
                return
            if not all(_is_there(folder / kept["checkpoint_dir_name"], kept["metrics"]) for kept in listed):
                remove(folder)
                return


def _is_there(checkpoint: Place, metrics: dict[str, Any]) -> bool:
    """Whether a checkpoint holds what the driver reads of it; the workers check the shards."""
    found = files_in(checkpoint)
    return PROGRESS_FILE in found and (not metrics[EXPORTED] or f"{MODEL}/config.json" in found)


def _worker(settings: dict[str, Any]) -> None:
    """What Ray Train runs in every worker process."""
    with bulk_imports(), without("mlflow"):  # DeepSpeed's autotuner would take it along
        from raw2s.forking.threads import use_own_threads  # noqa: PLC0415
        from raw2s.models.load import quiet_transformers  # noqa: PLC0415
        from raw2s.training.loop import train  # the driver needs no DeepSpeed, which takes seconds to import  # noqa: PLC0415

    use_own_threads()
    quiet_transformers()
    stopped = place(settings["stopped"])
    if exists(stopped):
        return  # the attempt before met what this one would meet again
    context = ray.train.get_context()
    if context.get_local_rank() == 0:
        sweep()
    found = ray.train.get_checkpoint()
    rows = scratch("rows")
    try:
        job: Job = _on_this_node(settings["job"], rows)
        try:
            with found.as_directory() if found is not None else nullcontext() as folder:
                checkpoint = None if folder is None else Path(folder)
                rank, workers = context.get_world_rank(), context.get_world_size()
                publish = partial(_publish, settings["board"], job.name)
                train(job, rank, workers, checkpoint=checkpoint, report=_report, publish=publish)
        except CheckpointChanged as error:
            write(place(settings["changed"]), str(error).encode())  # all ranks the same; not raised, to be no failure
        except (StageFailed, ValueError) as error:
            write(stopped, " ".join(str(error).split()).encode())
            raise
    finally:
        shutil.rmtree(rows, ignore_errors=True)


def _on_this_node(job: Job, rows: Path) -> Job:
    """The job with what it reads as local files: a model of an artifact, and in `rows` those that lie beside the checkpoints."""

    def fetched(name: str) -> str:
        file = place(name)
        if isinstance(file, Path):
            return name
        copy(filesystem(file), filesystem(rows / file.name))
        return str(rows / file.name)

    return replace(job, model=here(job.model), train_file=fetched(job.train_file), validation_file=fetched(job.validation_file))


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
