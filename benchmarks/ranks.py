"""Several workers as plain processes with a process group over gloo: what trains together, without Ray around it."""

import os
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing


def run_ranks(work: Callable[..., None], workers: int, *args: Any) -> None:
    """`work(rank, *args)` in `workers` new processes side by side. Raises what one of them raised."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_rank, args=(workers, port, work, args), nprocs=workers)


def _rank(rank: int, workers: int, port: int, work: Callable[..., None], args: tuple[Any, ...]) -> None:
    os.environ |= {
        "DS_ACCELERATOR": "cpu", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(workers),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    work(rank, *args)
    dist.barrier()  # nobody leaves while another still listens to it
    # Not the interpreter's end: DeepSpeed keeps the group and gloo's threads alive, and one that then asks for the
    # interpreter aborts the process.
    os._exit(0)
