"""Pretrain the base models that raw2s ships, from text outside A, B, devel and test.

    python jobs/pretrain_tiny.py --only tiny-gpt2 tiny-opt tiny-gpt-neox tiny-llama    # about an hour on two cores
    python jobs/pretrain_tiny.py --only small-gpt2 --out models --device cuda

Three weak bases (GPT-2, OPT, GPT-NeoX), each with a tokenizer of its own, read one third of the text each, as bracketed
sentences ("wake me up at [time : nine am]"). The strong base (Llama) reads all of it, longer, each sentence followed by
what it holds in one of three forms, none of which is the task's own: it has seen more, as a large model has.

`tiny-*` are the demo's. `small-*` are the testbed's (docs/testbed.md): five teachers of like strength (the paper has three), and a
student that is far stronger than they are, as in the paper.
"""

import argparse
import hashlib
import json
import math
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from rich.progress import track
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from raw2s.models.source import BUILTIN_FOLDER
from raw2s.models.tiny import held_out_perplexity, held_out_texts, pretraining_texts, split_rows
from raw2s.tasks.slurp import Row

SEED = 2025
WEAK_EPOCHS = 16
SMALL_EPOCHS = 48


@dataclass(frozen=True)
class Recipe:
    """One built-in model: its text, its tokenizer and how long it learns."""

    config: PretrainedConfig
    specials: dict[str, str]
    prepend_bos: bool
    share: tuple[int, int]
    """(k, n): the k-th of n equal parts of the rows; (0, 1) is all of them."""
    notation: str
    epochs: int
    learning_rate: float


def recipes() -> dict[str, Recipe]:
    endoftext = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    closed = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "</s>"}
    padded = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    weak = ("brackets", WEAK_EPOCHS, 3e-3)
    small = ("brackets", SMALL_EPOCHS, 2e-3)
    return {
        "tiny-gpt2": Recipe(gpt2(1000, 96, 2), endoftext, False, (0, 3), *weak),
        "tiny-opt": Recipe(opt(1200, 96, 2), closed, True, (1, 3), *weak),
        "tiny-gpt-neox": Recipe(gpt_neox(1500, 96, 2), endoftext, False, (2, 3), *weak),
        "tiny-llama": Recipe(llama(), padded, True, (0, 1), "annotated", 18, 3e-3),
        "small-gpt2": Recipe(gpt2(2000, 160, 4), endoftext, False, (0, 3), *small),
        "small-opt": Recipe(opt(2000, 128, 3), closed, True, (1, 3), *small),
        "small-gpt-neox": Recipe(gpt_neox(2000, 128, 3), endoftext, False, (2, 3), *small),
        "small-llama": Recipe(llama(), padded, True, (0, 1), "annotated", 64, 3e-3),
        "small-qwen2": Recipe(gated(Qwen2Config, 2000, 128, 3), endoftext, False, (0, 4), "brackets", 64, 2e-3),
        "small-mistral": Recipe(gated(MistralConfig, 1200, 160, 4), padded, True, (1, 3), *small),
    }


def gpt2(vocabulary: int, width: int, layers: int) -> GPT2Config:
    return GPT2Config(
        vocab_size=vocabulary, n_positions=256, n_embd=width, n_layer=layers, n_head=4, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
    )  # fmt: skip


def opt(vocabulary: int, width: int, layers: int) -> OPTConfig:
    return OPTConfig(
        vocab_size=vocabulary, max_position_embeddings=256, hidden_size=width, word_embed_proj_dim=width, ffn_dim=4 * width,
        num_hidden_layers=layers, num_attention_heads=4, dropout=0.0,
    )  # fmt: skip


def gpt_neox(vocabulary: int, width: int, layers: int) -> GPTNeoXConfig:
    return GPTNeoXConfig(
        vocab_size=vocabulary, max_position_embeddings=256, hidden_size=width, intermediate_size=4 * width,
        num_hidden_layers=layers, num_attention_heads=4,
    )  # fmt: skip


def llama() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=2048, max_position_embeddings=256, hidden_size=192, intermediate_size=512,
        num_hidden_layers=4, num_attention_heads=6, tie_word_embeddings=True,
    )  # fmt: skip


def gated(kind: Callable[..., PretrainedConfig], vocabulary: int, width: int, layers: int) -> PretrainedConfig:
    return kind(
        vocab_size=vocabulary, max_position_embeddings=256, hidden_size=width, intermediate_size=8 * width // 3 // 16 * 16,
        num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=True,
    )  # fmt: skip


def train_tokenizer(recipe: Recipe, texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE; the task's JSON punctuation is added to the text so that it becomes pieces."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = list(dict.fromkeys(recipe.specials.values()))
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.config.vocab_size, special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator([*texts, *['{"a": "b", "c": "d"}', "{}"] * len(texts)], trainer)
    if recipe.prepend_bos:
        bos = recipe.specials["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    else:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **recipe.specials, model_max_length=256)


def blocks(tokenizer: PreTrainedTokenizerFast, texts: list[str], length: int) -> torch.Tensor:
    """All texts, each closed by the end marker, cut into rows of `length` tokens: (rows, length)."""
    ids = [i for own in tokenizer(texts)["input_ids"] for i in [*own, tokenizer.eos_token_id]]
    return torch.tensor(ids[: len(ids) // length * length]).view(-1, length)


def learn(
    name: str,
    recipe: Recipe,
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    rows: list[Row],
    rng: random.Random,
) -> tuple[int, int]:
    """Train the model, where it is, on the recipe's texts of the rows; returns the steps and tokens that it took."""
    device = next(model.parameters()).device
    decay = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
        betas=(0.9, 0.95),
    )
    length, rows_per_step, step, tokens = 128, 16, 0, 0
    steps_guess = recipe.epochs * math.ceil(
        len(blocks(tokenizer, pretraining_texts(rows, recipe.notation, random.Random(0)), length)) / rows_per_step
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / 100, 0.5 * (1 + math.cos(math.pi * min(1.0, s / steps_guess))) + 0.01)
    )
    for _ in track(range(recipe.epochs), description=name):
        texts = pretraining_texts(rows, recipe.notation, rng)
        rng.shuffle(texts)
        data = blocks(tokenizer, texts, length)
        for batch in data[torch.randperm(len(data))].to(device).split(rows_per_step):
            loss = model(input_ids=batch, labels=batch).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            step, tokens = step + 1, tokens + batch.numel()
    return step, tokens


def pretrain(name: str, recipe: Recipe, out: Path, device: str) -> None:
    torch.manual_seed(SEED)
    rng = random.Random(SEED)
    part, parts = recipe.share
    rows = split_rows()[0][part::parts]
    tokenizer = train_tokenizer(recipe, pretraining_texts(rows, recipe.notation, rng))
    config = recipe.config
    config.bos_token_id, config.eos_token_id, config.pad_token_id = (
        tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).to(device)
    start, cpu = time.time(), time.process_time()
    step, tokens = learn(name, recipe, model, tokenizer, rows, rng)
    folder = out / name
    model.cpu().half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    reloaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    perplexity = held_out_perplexity(reloaded, tokenizer, held_out_texts(recipe.notation))
    card = {
        "name": name,
        "architecture": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "vocabulary": len(tokenizer),
        "text": f"SLURP train (through MASSIVE 1.0 en-US) outside the held-out pool and NLU-Evaluation-Data, CC BY 4.0: part {part + 1} of {parts}, {len(rows)} utterances, notation {recipe.notation!r}",
        "notation": recipe.notation,
        "steps": step,
        "tokens": tokens,
        "epochs": recipe.epochs,
        "learning_rate": recipe.learning_rate,
        "seed": SEED,
        "validation_perplexity": perplexity,
        "sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
        "seconds": round(time.time() - start),
        "cpu_seconds": round(time.process_time() - cpu),
        "versions": {p: version(p) for p in ("torch", "transformers", "tokenizers")},
    }
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    (folder / "README.md").write_text(model_card(card))
    print(f"{name}: {card['parameters']:,} parameters, held-out perplexity {perplexity:.3f}, {card['seconds']} s")


def model_card(card: dict) -> str:
    rows = "\n".join(f"| {key} | {value} |" for key, value in card.items() if key not in ("name", "versions"))
    example = re.sub(r"\n", " / ", pretraining_texts([EXAMPLE], card["notation"], random.Random(0))[0])
    return (
        f"---\nlicense: cc-by-4.0\n---\n# {card['name']}\n\nA tiny base model made by `jobs/pretrain_tiny.py` for raw2s's built-in demo. Not for any other use.\n"
        "It has seen no utterance of A, B, devel or test, not even one that differs only in spaces, case or punctuation. Perplexity is per token over the rows kept out of its training.\n\n"
        f"What it read, by example: `{example}`\n\n| | |\n|---|---|\n{rows}\n"
    )


EXAMPLE: Row = {
    "id": 0, "text": "wake me up at nine am", "annotation": "wake me up at [time : nine am]",
    "scenario": "alarm", "action": "set", "entities": [["time", "nine am"]],
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(recipes()), nargs="*")
    parser.add_argument("--out", type=Path, default=BUILTIN_FOLDER)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="other last digits, and far less time on a GPU")
    args = parser.parse_args()
    for name, recipe in recipes().items():
        if not args.only or name in args.only:
            pretrain(name, recipe, args.out, args.device)


if __name__ == "__main__":
    main()
