"""Host memory of a model's load in training: under ZeRO-3 in parts, below it whole, and as `from_pretrained` does it in every rank.

    python benchmarks/loading.py        # writes benchmarks/results/loading.json

A Llama of random weights in fp32, on 2 and on 4 CPU ranks of one machine. What is counted: the proportional set size (PSS) of every
rank above what it was before the load, its peak, summed over the ranks. PSS shares a page that several processes map among them.
`anonymous` is what of it cannot be dropped; the rest are pages of the checkpoint, which the kernel keeps as long as it likes.
"""

import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import torch
import torch.distributed as dist
import torch.multiprocessing
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from raw2s.config import TrainingConfig
from raw2s.methods.cross_entropy import CrossEntropySection
from raw2s.models.load import load_model, load_tokenizer
from raw2s.pipeline.artifacts import LIBRARIES
from raw2s.training.job import Job

WORKERS = (2, 4)
EVERY_SECONDS = 0.005


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes."""

    all: int
    anonymous: int


def make_model(folder: Path, layers: int = 16) -> int:
    """A Llama with the tokenizer of a built-in model, its weights in fp32. Returns their bytes."""
    tokenizer = load_tokenizer("tiny-llama")
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=512, intermediate_size=1408, num_hidden_layers=layers, num_attention_heads=8,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder, max_shard_size="50MB")
    tokenizer.save_pretrained(folder)
    return sum(p.nbytes for p in model.parameters())


def job_of(model: Path, **training: Any) -> Job:
    """What `load_trainable` is told; its files are not read."""
    return Job(
        name="loading", model=str(model), task="slurp_slots", form="text", classes=(), rows="targets", train_file="", seed=1,
        validation_file="", training=TrainingConfig(**{"batch_size": 8, "micro_batch_size": 1} | training),
        loss=CrossEntropySection(),
    )  # fmt: skip


def plain(job: Job, workers: int) -> PreTrainedModel:
    """As every rank loaded until now."""
    return load_model(job.model, job.form, job.classes)


def trainable(job: Job, workers: int) -> PreTrainedModel:
    from raw2s.training.loading import load_trainable  # noqa: PLC0415

    return load_trainable(job, workers)


def memory() -> Memory:
    lines = (line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    found = {name: 1024 * int(kib) for name, kib, *_ in lines}
    return Memory(all=found["Pss:"], anonymous=found["Pss_Anon:"] + found["Pss_Shmem:"])


@contextmanager
def peak_above() -> Iterator[dict[str, int]]:
    """The peaks of this process while the block runs, less what it held before; filled in at the end."""
    before, peaks = memory(), {"all": 0, "anonymous": 0}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(EVERY_SECONDS):
            look()

    def look() -> None:
        now = memory()
        for key in peaks:
            peaks[key] = max(peaks[key], getattr(now, key) - getattr(before, key))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peaks
    finally:
        over.set()
        watcher.join()
        look()


def peaks_of(load: Callable[[Job, int], PreTrainedModel], job: Job, workers: int) -> dict[str, int]:
    """The ranks' peaks, summed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("spawn")
    found = context.SimpleQueue()
    torch.multiprocessing.spawn(_rank, args=(workers, port, load, job, found), nprocs=workers)
    each = [found.get() for _ in range(workers)]
    return {key: sum(own[key] for own in each) for key in each[0]}


def _rank(rank: int, workers: int, port: int, load: Callable[..., Any], job: Job, found: Any) -> None:
    os.environ |= {
        "DS_ACCELERATOR": "cpu", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(workers),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "MALLOC_MMAP_THRESHOLD_": "65536",
    }  # fmt: skip
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    import raw2s.training.loop  # noqa: F401, PLC0415
    load(job_of("tiny-llama", zero_stage=job.training.zero_stage, workers=workers), workers)  # imports, and what starts only once
    dist.barrier()
    with peak_above() as peaks:
        model = load(job, workers)
        dist.barrier()
    found.put(peaks)
    dist.barrier()
    del model
    os._exit(0)
