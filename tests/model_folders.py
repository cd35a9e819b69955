"""Folders of models: a whole one, of any architecture that transformers makes, and broken ones."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PretrainedConfig

from raw2s.models.load import load_tokenizer
from raw2s.models.source import model_source


def of_config(folder: Path, config: PretrainedConfig) -> str:
    """All that preflight asks for: a config, a tokenizer, and weights that nobody will load."""
    config.save_pretrained(folder)
    load_tokenizer("tiny-gpt2").save_pretrained(folder)
    save_file({"none": torch.zeros(1)}, folder / "model.safetensors")
    return str(folder)


def copied(folder: Path, *without: str) -> str:
    """The built-in tiny-gpt2, some of its files left out."""
    shutil.copytree(model_source("tiny-gpt2"), folder, ignore=shutil.ignore_patterns(*without))
    return str(folder)
