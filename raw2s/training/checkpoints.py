"""Checkpoints: all that a training run needs to resume as if it had not been interrupted.

Order of the rows, learning rate, gamma, lambda and dropout come from the seed and the step, so beside the engine's shards a
checkpoint remembers little: `progress.json`, which the driver reads too (`progress.py`). A folder holds, written by all ranks:

    engine/          DeepSpeed's shards: weights and optimizer state; absent after the last step
    progress.json    `Progress`
    sums-*.json      what every rank wrote of these (`sums.py`)
    model/           the exported Hugging Face folder, where this is the best model so far, or the last
"""

import os
import shutil
import socket
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import deepspeed
import torch.distributed as dist
from deepspeed.checkpoint import ds_to_universal

from raw2s.training.scratch import scratch
from raw2s.training.sums import CheckpointChanged, changed

ENGINE = "engine"


def save_engine(engine: deepspeed.DeepSpeedEngine, folder: Path) -> None:
    """This rank's shards. All ranks must call."""
    engine.save_checkpoint(str(folder), tag=ENGINE, save_latest=False)


def load_engine(engine: deepspeed.DeepSpeedEngine, folder: Path) -> None:
    """Weights and optimizer state of a checkpoint, or of a universal one if the engine was made for that."""
    engine.load_checkpoint(str(folder), tag=ENGINE)


def require_unchanged(checkpoint: Path) -> None:
    """Raise CheckpointChanged, on every rank, unless all files are as they were written; the ranks of a node share the reading.

    All ranks must call, in an initialized process group.
    """
    problems: list[str | None] = [None] * dist.get_world_size()
    own = changed(checkpoint, part=int(os.environ["LOCAL_RANK"]), parts=int(os.environ["LOCAL_WORLD_SIZE"]))
    dist.all_gather_object(problems, own)
    if problem := next(filter(None, problems), None):
        raise CheckpointChanged(f"in the checkpoint {checkpoint}, {problem}")


@contextmanager
def universal_checkpoint(checkpoint: Path) -> Iterator[Path]:
    """The checkpoint in DeepSpeed's universal form, which any number of workers can load; made on every node, gone afterwards.

    All ranks must enter, in an initialized process group.
    """
    made = scratch("universal") if int(os.environ["LOCAL_RANK"]) == 0 else None
    try:
        if made is not None:
            ds_to_universal.main(Namespace(
                input_folder=str(checkpoint / ENGINE), output_folder=f"{made}/{ENGINE}", num_extract_workers=1,
                num_merge_workers=1, keep_temp_folder=False, strict=True, inject_missing_state=True,
            ))  # fmt: skip
        here = socket.gethostname()
        folders: list[tuple[str, Path | None]] = [("", None)] * dist.get_world_size()
        dist.all_gather_object(folders, (here, made))
        yield next(folder for host, folder in folders if host == here and folder is not None)
        dist.barrier()  # not after an error, which the others may not have met
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
