"""Host memory of a model's load in training: under ZeRO-3 in parts, below it whole, and as every rank loaded before.

    python benchmarks/loading.py        # writes benchmarks/results/loading.json

A Llama of random weights on 2 and on 4 CPU ranks of one machine, its checkpoint in bf16 as those of hubs are, or in fp32. Counted is
every rank's proportional set size (PSS) above what it was before the load, its peak, summed over the ranks, in copies of the model in
training's format. `held` is anonymous and shared memory; the rest of `all` are pages of the checkpoint, which the kernel may drop.
"""

import gc
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import torch
import torch.distributed as dist
import torch.multiprocessing
from ranks import run_ranks
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from raw2s.config import TrainingConfig
from raw2s.methods.cross_entropy import CrossEntropySection
from raw2s.models.load import load_model, load_tokenizer
from raw2s.pipeline.artifacts import LIBRARIES
from raw2s.training.job import Job

WORKERS = (2, 4)
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
WAYS: dict[str, dict[str, Any]] = {
    "before, fp32": {"zero_stage": 3},
    "zero_stage 1, fp32": {"zero_stage": 1},
    "zero_stage 3, fp32": {"zero_stage": 3},
    "zero_stage 1, bf16": {"zero_stage": 1, "precision": "bf16"},
    "zero_stage 3, bf16": {"zero_stage": 3, "precision": "bf16"},
}
EVERY_SECONDS = 0.005
MAPPED = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""glibc maps a block of more than 32 MB on its own, as a large model's weights are; this model's would leave holes in its heap."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """A load to be measured; `before`: whole and in fp32 in every rank, as training did."""

    job: Job
    before: bool = False


def make_model(folder: Path, dtype: torch.dtype, layers: int = 16) -> int:
    """A Llama with the tokenizer of a built-in model, its weights in a type. Returns their bytes."""
    tokenizer = load_tokenizer("tiny-llama")
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=512, intermediate_size=1408, num_hidden_layers=layers, num_attention_heads=8,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).to(dtype)
    model.save_pretrained(folder, max_shard_size="50MB")
    tokenizer.save_pretrained(folder)
    return sum(p.nbytes for p in model.parameters())


def job_of(model: Path | str, **training: Any) -> Job:
    """What `load_trainable` is told; its files are not read."""
    return Job(
        name="loading", model=str(model), task="slurp_slots", form="text", classes=(), rows="targets", train_file="", seed=1,
        validation_file="", training=TrainingConfig(**{"batch_size": 8, "micro_batch_size": 1} | training),
        loss=CrossEntropySection(),
    )  # fmt: skip


def measured(ways: Mapping[str, Way], workers: int) -> dict[str, dict[str, int]]:
    """This rank's peaks of every way, in bytes; all ranks must call, in an initialized process group."""
    from raw2s.training.loading import load_trainable  # noqa: PLC0415  # DeepSpeed wants to know its device before

    def load(way: Way) -> PreTrainedModel:
        return load_model(way.job.model, "text") if way.before else load_trainable(way.job, workers)

    found = {}
    for name, way in ways.items():
        load(Way(job=job_of("tiny-llama", **way.job.training.model_dump()), before=way.before))  # what starts only once
        gc.collect()
        dist.barrier()
        with peak_above() as found[name]:
            model = load(way)
            dist.barrier()
        del model
    return found


@contextmanager
def peak_above() -> Iterator[dict[str, int]]:
    """The peaks of this process while the block runs, less what it held before; filled in as it runs."""
    before = _memory()
    peaks = dict.fromkeys(before, 0)
    over = threading.Event()

    def look() -> None:
        for key, now in _memory().items():
            peaks[key] = max(peaks[key], now - before[key])

    def watch() -> None:
        while not over.wait(EVERY_SECONDS):
            look()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peaks
    finally:
        over.set()
        watcher.join()
        look()


def _memory() -> dict[str, int]:
    lines = (line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    found = {name: 1024 * int(kib) for name, kib, *_ in lines}
    return {"all": found["Pss:"], "held": found["Pss_Anon:"] + found["Pss_Shmem:"]}


def copies(each: list[dict[str, dict[str, int]]], sizes: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """The ranks' peaks summed, by way, in copies of the model."""
    return {
        way: {key: round(sum(own[way][key] for own in each) / size, 2) for key in ("all", "held")} for way, size in sizes.items()
    }


def in_ranks(ways: Mapping[str, Way], workers: int) -> list[dict[str, dict[str, int]]]:
    """Every rank's `measured`, each rank a process of its own."""
    found = torch.multiprocessing.get_context("spawn").SimpleQueue()
    run_ranks(_measure, workers, ways, workers, found, start_method="spawn")
    return [found.get() for _ in range(workers)]


def _measure(rank: int, ways: Mapping[str, Way], workers: int, found: Any) -> None:
    found.put(measured(ways, workers))


def main() -> None:
    arguments = harness.parser(__doc__, "loading.json").parse_args()
    os.environ |= MAPPED  # glibc reads it as a process starts
    results: dict[str, Any] = {"environment": harness.environment(*LIBRARIES), "copies": {}}
    with tempfile.TemporaryDirectory() as folder:
        sizes = {kind: make_model(Path(folder) / kind, dtype) for kind, dtype in TYPES.items()}
        results["mib"] = {kind: round(size / 2**20) for kind, size in sizes.items()}
        for workers in WORKERS:
            ways, one = {}, {}
            for stored in TYPES:
                for name, training in WAYS.items():
                    key = f"{stored} checkpoint, {name}"
                    job = job_of(Path(folder) / stored, workers=workers, **training)
                    ways[key], one[key] = Way(job=job, before=name.startswith("before")), sizes[job.training.precision]
            results["copies"][str(workers)] = copies(in_ranks(ways, workers), one)
    harness.write(arguments.out, results)


if __name__ == "__main__":
    main()
