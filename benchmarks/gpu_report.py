"""What the parts of gpu_step.py share: sizes, models, ways to run a model, and a report that is written as it comes."""

import gc
import json
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PretrainedConfig, PreTrainedModel

from raw2s.decoding.block_masks import use_block_masks
from raw2s.models.layers import compile_layers, decoder_layers

SEED = 7


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Models and batches; `rows` and `trees` are prompts of a step, targets are three a prompt."""

    step: PretrainedConfig
    seven: PretrainedConfig
    scorer: PretrainedConfig
    rows: int = 32
    prompt: tuple[int, int] = (280, 360)
    target: tuple[int, int] = (10, 60)
    trees: tuple[int, ...] = (6, 4)
    tree_tokens: int = 2048
    scored: tuple[int, int, int, int] = (32, 450, 15, 30)
    """Prompts, tokens of each, candidates of each, tokens of each."""
    steps: int = 10


FULL = Sizes(
    step=LlamaConfig(
        vocab_size=32_000, hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32,
        num_key_value_heads=4, max_position_embeddings=2048, tie_word_embeddings=False,
    ),
    seven=LlamaConfig(
        vocab_size=32_000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=32, max_position_embeddings=4096, tie_word_embeddings=False,
    ),
    scorer=GPT2Config(n_embd=1280, n_layer=36, n_head=20),
)  # fmt: skip
_TOY = LlamaConfig(
    vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=2048, tie_word_embeddings=False,
)  # fmt: skip
TINY = Sizes(
    step=_TOY, seven=_TOY, scorer=GPT2Config(vocab_size=512, n_embd=64, n_layer=2, n_head=4), rows=2, prompt=(20, 30),
    target=(5, 9), trees=(2,), tree_tokens=60, scored=(2, 30, 3, 5), steps=1,
)  # fmt: skip


@dataclass
class Report:
    """What is found, printed and written as it comes."""

    out: Path
    device: torch.device
    sizes: Sizes
    found: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, **figures: Any) -> None:
        self.found[name] = figures
        print(json.dumps({name: figures}), flush=True)
        self.out.write_text(json.dumps(self.found, indent=1) + "\n")

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What raises inside is written down, and the rest goes on."""
        start = time.perf_counter()
        try:
            yield
        except Exception:
            self.add(f"{name}: error", traceback=traceback.format_exc().splitlines()[-12:])
        print(f"# {name}: {time.perf_counter() - start:.1f} s", flush=True)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def made_model(config: PretrainedConfig, device: torch.device) -> PreTrainedModel:
    """Random weights in bf16, made on the device."""
    torch.manual_seed(SEED)
    with device:
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return model


def prepare(model: PreTrainedModel, how: Sequence[str]) -> None:
    """The model as one variant has it: `blocks`, `compile`, `compile each shape`; nothing is the path of d5f8c63."""
    torch._dynamo.reset()
    model.set_attn_implementation("sdpa")
    for layer in decoder_layers(model):
        vars(layer).pop("forward", None)
    if "blocks" in how:
        use_block_masks(model)
    if "compile" in how:
        compile_layers(model)
    if "compile each shape" in how:
        with patch.object(torch, "compile", partial(torch.compile, dynamic=False)):
            compile_layers(model)
