"""Several workers as plain processes with a process group over gloo: what trains together, without Ray around it."""

import os
import socket
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.multiprocessing

PRELOADED = ["raw2s.training.loop"]
"""What nearly every rank imports: 5 s of it, which the server that they are forked from spends once."""


def run_ranks(
    work: Callable[..., None], workers: int, *args: Any, start_method: Literal["forkserver", "spawn"] = "forkserver"
) -> None:
    """`work(rank, *args)` in `workers` new processes side by side. Raises what one of them raised.

    `spawn`: for those that share no memory from the start, or need an environment of their own.
    """
    os.environ["DS_ACCELERATOR"] = "cpu"  # read as DeepSpeed is imported
    torch.multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = (workers, port, work, args)
    torch.multiprocessing.start_processes(_rank, args=given, nprocs=workers, start_method=start_method)


def _rank(rank: int, workers: int, port: int, work: Callable[..., None], args: tuple[Any, ...]) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(workers), "LOCAL_WORLD_SIZE": str(workers),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    work(rank, *args)
    dist.barrier()  # nobody leaves while another still listens to it
    # Not the interpreter's end: DeepSpeed keeps the group and gloo's threads alive, and one that then asks for the
    # interpreter aborts the process.
    os._exit(0)
