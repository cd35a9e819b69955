import functools
import hashlib
import itertools
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open

from raw2s.decoding.tokens import decode_target, encode_prompt, encode_target
from raw2s.models.load import load_model, load_tokenizer
from raw2s.models.source import BUILTIN_FOLDER, model_fingerprint
from raw2s.models.tiny import held_out_perplexity, held_out_texts, split_rows
from raw2s.tasks.slurp import load_slurp, normalized
from raw2s.tasks.slurp_slots import slot_target

PRESENT = sorted(folder.name for folder in BUILTIN_FOLDER.iterdir() if folder.is_dir())

texts_in = functools.cache(held_out_texts)


def card_of(name: str) -> dict:
    return json.loads((BUILTIN_FOLDER / name / "card.json").read_text())


def test_both_fours_and_two_more_teachers_are_there_and_small():
    fours = [f"{size}-{family}" for size in ("small", "tiny") for family in ("gpt-neox", "gpt2", "llama", "opt")]
    assert sorted([*fours, "small-mistral", "small-qwen2"]) == PRESENT
    assert sum(file.stat().st_size for file in BUILTIN_FOLDER.rglob("*.safetensors")) <= 25_000_000
    assert not [file for file in BUILTIN_FOLDER.rglob("*") if file.suffix in (".bin", ".pt", ".pth", ".pkl", ".py")]


@pytest.mark.parametrize("name", PRESENT)
def test_the_card_is_true(name):
    card = card_of(name)
    model, tokenizer = load_model(name, "text"), load_tokenizer(name)
    assert hashlib.sha256((BUILTIN_FOLDER / name / "model.safetensors").read_bytes()).hexdigest() == card["sha256"]
    assert type(model).__name__ == card["architecture"]
    assert sum(parameter.numel() for parameter in model.parameters()) == card["parameters"]
    assert len(tokenizer) == model.config.vocab_size == card["vocabulary"]
    perplexity = held_out_perplexity(model, tokenizer, texts_in(card["notation"]))
    assert perplexity == pytest.approx(card["validation_perplexity"], rel=1e-4)
    assert perplexity < card["vocabulary"] / 2
    assert str(card["sha256"]) in (BUILTIN_FOLDER / name / "README.md").read_text()


def test_nothing_held_out_is_learned_from():
    learned, held_out = split_rows()
    assert not {normalized(row["text"]) for row in learned} & {normalized(row["text"]) for row in held_out}
    assert len(texts_in("brackets")) == len(held_out)


@pytest.mark.parametrize("name", PRESENT)
def test_the_tokenizer_gives_a_target_back(name):
    tokenizer = load_tokenizer(name)
    for row in load_slurp("devel")[:200]:
        text = slot_target(row, "short")
        ids, offsets = encode_target(tokenizer, text)
        assert decode_target(tokenizer, ids) == text
        assert ids.count(tokenizer.eos_token_id) == 1  # the end marker is no piece of a text
        assert "".join(text[start:end] for start, end in offsets) == text
        assert tokenizer.eos_token_id not in encode_prompt(tokenizer, row["text"])[1:]


@pytest.mark.parametrize(
    ("one", "other"), [pair for four in (PRESENT[:4], PRESENT[4:]) for pair in itertools.combinations(four, 2)]
)
def test_no_two_tokenizers_of_a_four_cut_a_target_alike(one, other):
    targets = [slot_target(row, "short") for row in load_slurp("devel")[:200]]
    cuts = [[tokenizer.tokenize(target) for target in targets] for tokenizer in map(load_tokenizer, (one, other))]
    different = sum(first != second for first, second in zip(*cuts, strict=True))
    assert different > len(targets) / 4


def test_the_models_differ_to_the_cache():
    assert len({model_fingerprint(name) for name in PRESENT}) == len(PRESENT)


@pytest.mark.slow
def test_they_load_offline_without_raw2s(tmp_path):
    script = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
for folder in sys.argv[1:]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)
    logits = model(**tokenizer("wake me up at", return_tensors="pt")).logits
    print(bool(logits.isfinite().all()), logits.shape[-1] == len(tokenizer))
assert "raw2s" not in sys.modules
"""
    folders = [str(BUILTIN_FOLDER / name) for name in PRESENT]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, *folders], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True"] * len(PRESENT)


@pytest.mark.parametrize("name", PRESENT)
def test_the_weights_are_finite_halves(name):
    with safe_open(BUILTIN_FOLDER / name / "model.safetensors", "pt") as file:
        weights = [file.get_tensor(key) for key in file.keys()]  # noqa: SIM118
    assert {weight.dtype for weight in weights} == {torch.float16}
    assert all(weight.isfinite().all() for weight in weights)
