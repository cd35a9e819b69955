"""Where a model lies: built-in names, folders, hub ids. Needs no transformers, which takes two seconds to import."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

TINY_FOLDER = Path(__file__).parent / "weights"
"""The built-in models, made by `jobs/pretrain_tiny.py`."""


def model_source(name: str) -> str:
    """The folder of a built-in model or of a path (absolute: Ray workers change directory), else `name` as a hub id."""
    builtin = TINY_FOLDER / name
    if builtin.is_dir():
        return str(builtin)
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def model_fingerprint(name: str) -> str:
    """What identifies a model's content in an artifact key: a hash over its files, or the hub id itself."""
    folder = Path(model_source(name))
    if not folder.is_dir():
        return name
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".model", ".txt", ".jinja")):
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def builtin_card(name: str) -> dict[str, Any] | None:
    """The card of a built-in model: what it read, its size and held-out perplexity; None of any other model."""
    file = TINY_FOLDER / name / "card.json"
    card: dict[str, Any] | None = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    return card


def licence_of(name: str) -> str:
    """`name: its licence`, as the card in its folder says; of a hub model, which has no folder here, where to look."""
    folder = Path(model_source(name))
    if not folder.is_dir():
        return f"{name}: see its page on the hub for the licence"
    card = folder / "README.md"
    said = re.search(r"\A---\n(?:(?!---).*\n)*?license: *(\S+)", card.read_text(encoding="utf-8")) if card.is_file() else None
    return f"{name}: {said[1]}, as its card says" if said else f"{name}: its folder has no card that says a licence"
