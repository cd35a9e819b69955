"""What `raw2s plan` says of a training step, of scoring and of beams, beside what a GPU measures: shapes that no other part has.

Run by `benchmarks/gpu.py plan`; weights are random, the optimizer is torch's AdamW with moments in the weights' type.
"""

import gc
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gpu_report import SEED, Report, prepare
from gpu_training import Trainer, random_row
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from raw2s.decoding.packing import pack_rows, token_tree
from raw2s.decoding.scoring import continuation_logprobs
from raw2s.decoding.search import beam_search
from raw2s.models.layers import checkpoint_layers, use_gpu_kernels
from raw2s.models.load import fuse_gelu
from raw2s.sizing.activations import layer_memory
from raw2s.sizing.decoding import BeamBatch, beams_peak, scoring_peak
from raw2s.sizing.model import meta_model, model_size
from raw2s.sizing.stage import GIB
from raw2s.sizing.states import Layout
from raw2s.sizing.training import MicroBatch, Step, step_peak

BAR = 0.15
"""How far a planned peak may be from the measured one."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A training step: prompts with three targets each."""

    config: PretrainedConfig
    how: tuple[str, ...] = ()
    dtype: torch.dtype = torch.bfloat16
    prompts: int = 16
    prompt: int = 320
    target: int = 40
    micro_batches: int = 1
    checkpointed: float = 0.0


LARGE = GPT2Config(n_embd=1280, n_layer=36, n_head=20)
LLAMA = LlamaConfig(
    vocab_size=32_000, hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32, num_key_value_heads=4,
    max_position_embeddings=2048, tie_word_embeddings=False,
)  # fmt: skip
OPT = OPTConfig(hidden_size=2048, ffn_dim=8192, num_hidden_layers=24, num_attention_heads=32, word_embed_proj_dim=2048)
NEOX = GPTNeoXConfig(
    vocab_size=50_304, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=8, attention_dropout=0.0,
)  # fmt: skip
STEPS = {
    "GPT2-Large, dense": Case(config=LARGE),
    "OPT-1.3B, dense, half the layers recomputed": Case(config=OPT, checkpointed=0.5),
    "Pythia-1B, blocks + compile, 2 micro-batches": Case(config=NEOX, how=("blocks", "compile"), prompts=32, micro_batches=2),
    "1.1 B Llama, fp32, dense": Case(config=LLAMA, dtype=torch.float32),
}
SCORED, BEAMS = (32, 450, 15, 30), (32, 450, 5, 48)
"""Prompts, tokens of each; candidates and tokens of each, or beams and new tokens."""

_TOY: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TINY_STEPS = {
    "toy, dense": Case(config=LlamaConfig(vocab_size=512, intermediate_size=128, **_TOY), prompts=2, prompt=20, target=6),
    "toy, checkpointed": Case(
        config=GPTNeoXConfig(vocab_size=512, intermediate_size=128, **_TOY), prompts=2, prompt=20, target=6, checkpointed=0.5
    ),
}
TINY_DECODER = GPT2Config(vocab_size=512, n_embd=64, n_layer=2, n_head=4)


def random_model(config: PretrainedConfig, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    torch.manual_seed(SEED)
    with device:
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model


def measured_peak(work: Callable[[], Any], device: torch.device) -> dict[str, float]:
    """Of the second call; a first one compiles, and makes what stays."""
    work()
    if device.type != "cuda":
        work()
        return {"measured_gib": float("nan")}
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    reserved = torch.cuda.memory_reserved()
    return {
        "measured_gib": torch.cuda.max_memory_allocated() / GIB,
        "reserved_gib": torch.cuda.max_memory_reserved() / GIB,
        "outside_torch_gib": (total - free - reserved) / GIB,
    }


def planned_step(case: Case, batch: MicroBatch, card_bytes: float | None) -> float:
    """Bytes, of a step as `training_step` makes it."""
    model, dense = meta_model(case.config, dtype=case.dtype), "blocks" not in case.how
    step = Step(
        layout=Layout(stage=None, weight_bytes=case.dtype.itemsize),
        layer=layer_memory(model, compiled="compile" in case.how, repeated_heads=dense),
        micro_batch=batch, micro_batches=case.micro_batches, checkpointed=case.checkpointed, dense_mask=dense, card_bytes=card_bytes,
    )  # fmt: skip
    return step_peak(model_size(model), step).total


def training_step(case: Case, device: torch.device) -> tuple[MicroBatch, dict[str, float]]:
    model = random_model(case.config, case.dtype, device)
    prepare(model, case.how)
    if case.checkpointed:
        checkpoint_layers(model, case.checkpointed)
    trainer, draw = Trainer.of(model, device), random.Random(SEED)
    rows = [random_row(draw, case.config.vocab_size, case.prompt, [case.target] * 3) for _ in range(case.prompts)]
    batch = trainer.packed(rows)

    def step() -> None:
        for _ in range(case.micro_batches):
            (trainer.loss(batch, rows, "edl") / case.micro_batches).backward()
        trainer.update()

    shape = MicroBatch(
        rows=batch.rows.input_ids_RT.shape[0], width=batch.rows.input_ids_RT.shape[1], targets=len(batch.predictor_N)
    )
    return shape, measured_peak(step, device)


def ids(draw: random.Random, vocabulary: int, length: int) -> list[int]:
    return [draw.randrange(vocabulary) for _ in range(length)]


def scoring(config: GPT2Config, sizes: tuple[int, int, int, int], device: torch.device) -> tuple[float, dict[str, float]]:
    """Bytes planned, and what was measured."""
    prompts, tokens, texts, length = sizes
    draw, model = random.Random(SEED), fuse_gelu(random_model(config, torch.bfloat16, device)).eval()
    if device.type == "cuda":
        use_gpu_kernels(model)
    asked = [ids(draw, config.vocab_size, tokens) for _ in range(prompts)]
    candidates = [[ids(draw, config.vocab_size, length) for _ in range(texts)] for _ in asked]
    found = measured_peak(lambda: continuation_logprobs(model, asked, candidates, padding=0), device)
    trees = [token_tree(prompt, own) for prompt, own in zip(asked, candidates, strict=True)]
    one_batch = trees[: max(1, 16384 // len(trees[0].ids))]
    rows, _ = pack_rows(one_batch, padding=0, hidden_size=config.n_embd, layout="one_row")
    on_meta = fuse_gelu(meta_model(config, dtype=torch.bfloat16))
    batch = MicroBatch(rows=1, width=rows.input_ids_RT.shape[1], targets=len(one_batch) * texts * length)
    peak = scoring_peak(
        model_size(on_meta), layer_memory(on_meta), batch, weight_bytes=2, card_bytes=card_bytes(device)
    )  # fmt: skip
    return peak.total, found


def beams(config: GPT2Config, sizes: tuple[int, int, int, int], device: torch.device) -> tuple[float, dict[str, float]]:
    """Bytes planned, and what was measured."""
    prompts, tokens, width, new = sizes
    draw, model = random.Random(SEED), fuse_gelu(random_model(config, torch.bfloat16, device)).eval()
    ids_BP = torch.tensor([ids(draw, config.vocab_size, tokens) for _ in range(prompts)], device=device)

    @torch.inference_mode()
    def search() -> None:
        beam_search(model, ids_BP, torch.ones_like(ids_BP), beams=width, max_new_tokens=new, end_id=None)

    found = measured_peak(search, device)
    on_meta = fuse_gelu(meta_model(config, dtype=torch.bfloat16))
    batch = BeamBatch(prompts=prompts, width=tokens, beams=width, max_new_tokens=new)
    peak = beams_peak(
        model_size(on_meta), layer_memory(on_meta), batch, weight_bytes=2, on_gpu=device.type == "cuda"
    )  # fmt: skip
    return peak.total, found


def card_bytes(device: torch.device) -> float | None:
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None


def run(out: Path, tiny: bool = False) -> dict[str, Any]:
    """Each shape's planned and measured peak, and whether they are within the bar; also in `out` as they come."""
    device = torch.device("cuda" if torch.cuda.is_available() and not tiny else "cpu")
    report = Report(out, device, None)  # type: ignore[arg-type]  # no sizes of its own

    def add(name: str, planned: float, found: dict[str, float], start: float) -> None:
        apart = planned / GIB / found["measured_gib"] - 1
        report.add(name, planned_gib=planned / GIB, **found, apart=apart, bar=BAR, met=abs(apart) <= BAR,
                   seconds=time.perf_counter() - start)  # fmt: skip

    for name, case in (TINY_STEPS if tiny else STEPS).items():
        with report.part(name):
            start = time.perf_counter()
            shape, found = training_step(case, device)
            gc.collect()
            add(name, planned_step(case, shape, card_bytes(device)), found, start)
    decoder, sizes = (TINY_DECODER, ((2, 20, 3, 5), (2, 20, 3, 5))) if tiny else (LARGE, (SCORED, BEAMS))
    for name, work, own in (("scoring, GPT2-Large", scoring, sizes[0]), ("beams, GPT2-Large", beams, sizes[1])):
        with report.part(name):
            start = time.perf_counter()
            add(name, *work(decoder, own, device), start)
    return report.found
