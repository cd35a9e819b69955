"""A training step of a 1.1 B Llama from random weights on one GPU: tokens a second, MFU and peak memory, for CE and EDL.

    python benchmarks/training_gpu.py      # writes benchmarks/results/training_gpu.json; without a GPU it says so and writes nothing

The pipeline's own model, batches and objectives without Ray and DeepSpeed around them: prompts of the paper's length with three
teachers' targets each, packed in rows, bf16 weights and torch's fused AdamW on them; DeepSpeed would keep fp32 master weights as
well. The targets are soft: the bridge runs in every step.
"""

import importlib.metadata
import json
import math
import random
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig

from raw2s.config import TrainingConfig
from raw2s.decoding.packing import token_tree
from raw2s.methods import LossSection
from raw2s.methods.cross_entropy import CrossEntropySection
from raw2s.methods.evidential import EvidentialSection
from raw2s.training.batching import Batch, TokenRow, TokenSequence, collate
from raw2s.training.job import Job
from raw2s.training.objectives import Objective, PackedModel, objective_of
from raw2s.training.throughput import WORK, Meter

LLAMA = LlamaConfig(
    vocab_size=32_000, hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32, num_key_value_heads=4,
    max_position_embeddings=2048, tie_word_embeddings=False,
)  # fmt: skip
"""1.1 B parameters: the shape of TinyLlama."""
PROMPTS, TEACHERS, STEPS, WARM_UP, SEED = 32, 3, 20, 5, 7
PROMPT_TOKENS, TARGET_TOKENS = (280, 360), (10, 60)
LOSSES = {"ce": CrossEntropySection(gamma_max=0.1), "edl": EvidentialSection(kl_weight=1e-5, gamma_max=0.1)}


def random_row(i: int, vocabulary: int, draw: random.Random) -> TokenRow:
    """A prompt and its teachers' targets; a word of the bridge is two pieces, each of log-probability -0.1."""

    def ids(low: int, high: int) -> list[int]:
        return [draw.randrange(vocabulary) for _ in range(draw.randint(low, high))]

    prompt, targets = ids(*PROMPT_TOKENS), [ids(*TARGET_TOKENS) for _ in range(TEACHERS)]
    sequences = [
        TokenSequence(target, [piece // 2 for piece in range(len(target))], [1 / TEACHERS], [[-0.2] * (len(target) // 2 + 1)])
        for target in targets
    ]
    return TokenRow(id=i, tree=token_tree(prompt, targets), total=sum(map(len, targets)) / TEACHERS, sequences=sequences)


def objective(loss: LossSection) -> Objective:
    """At the last step of a run, where gamma and the regulariser's weight are whole."""
    job = Job(
        name="step", model="", task="", form="text", classes=(), rows="targets", train_file="", validation_file="",
        training=TrainingConfig(), loss=loss, seed=SEED,
    )  # fmt: skip
    return objective_of(job, 1, 1)[0]


def measure(config: PretrainedConfig, loss: LossSection, device: torch.device, prompts: int = PROMPTS, steps: int = STEPS) -> Any:
    """Figures of `steps` training steps on `prompts` prompts each, after `WARM_UP` more."""
    torch.manual_seed(SEED)
    draw = random.Random(SEED)
    with device:
        made = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model = PackedModel(made.train())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    meter = Meter(model, device, workers=1)
    losses, seconds = [], 0.0
    for step in range(WARM_UP + steps):
        rows = [random_row(i, config.vocab_size, draw) for i in range(prompts)]
        batch: Batch = collate(rows, SimpleNamespace(pad_token_id=0), config.hidden_size).to(device)  # type: ignore[arg-type]
        if step == WARM_UP:
            _wait(device)
            meter.read()
            seconds = time.perf_counter()
        total, _ = model(batch, objective(loss))
        mean = total / sum(row.total for row in rows)
        mean.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step >= WARM_UP:
            work = (sum(row.length for row in rows), batch.rows.input_ids_RT.numel(), len(batch.predictor_N))
            meter.add(dict(zip(WORK, map(float, work), strict=True)))
        losses.append(mean.detach())
    _wait(device)
    seconds = time.perf_counter() - seconds
    curve = torch.stack(losses).tolist()
    assert all(map(math.isfinite, curve)), "a loss is no number"
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds_per_step": seconds / steps,
        "loss": {"first": curve[0], "last": curve[-1]},
        **meter.read(),
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    if not torch.cuda.is_available():
        print("skipped: no CUDA device on this machine")
        return
    device = torch.device("cuda")
    results = {
        "environment": {
            "date": datetime.now(UTC).date().isoformat(), "gpu": torch.cuda.get_device_name(), "seed": SEED,
            "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers")},
        },
        "step": {"prompts": PROMPTS, "teachers": TEACHERS, "prompt_tokens": PROMPT_TOKENS, "target_tokens": TARGET_TOKENS},
    }  # fmt: skip
    for name, loss in LOSSES.items():
        torch.cuda.reset_peak_memory_stats()
        results[name] = measure(LLAMA, loss, device)
        print(f"{name}: {json.dumps(results[name])}")
        torch.cuda.empty_cache()
    (Path(__file__).parent / "results" / "training_gpu.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
