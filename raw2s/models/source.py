"""Where a model lies: built-in names, folders, hub ids. Needs no transformers, which takes two seconds to import."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

BUILTIN_FOLDER = Path(__file__).parent / "weights"
"""The built-in models, made by `jobs/pretrain_tiny.py`."""


def model_source(name: str) -> str:
    """The folder of a built-in model or of a path (absolute: Ray workers change directory), else `name` as a hub id."""
    builtin = BUILTIN_FOLDER / name
    if builtin.is_dir():
        return str(builtin)
    return str(Path(name).resolve()) if Path(name).is_dir() else name


PLAIN_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.md")
"""What of a hub repository is fetched: no pickle and no code."""


def student_folder(source: str) -> Path:
    """The folder of a path, or of the hub's repository of that id, fetched here.

    Raises ValueError, in one line, where neither is there.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder.resolve()
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise ValueError(f"{source}: no such folder, and no hub id org/name; correct it")
    from huggingface_hub import snapshot_download  # half a second to import  # noqa: PLC0415

    try:
        return Path(snapshot_download(source, allow_patterns=list(PLAIN_FILES)))
    except Exception as error:  # the hub's library raises whatever its transport does
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{source}: no folder here, and the hub does not give it ({reason}); correct it, or give a folder that `raw2s export` made"
        ) from None


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
    file = BUILTIN_FOLDER / name / "card.json"
    card: dict[str, Any] | None = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    return card


def licence_of(name: str) -> str:
    """`name: its licence`, as the card in its folder says; of a hub model, which has no folder here, where to look."""
    if not Path(model_source(name)).is_dir():
        return f"{name}: see its page on the hub for the licence"
    said = stated_licence(name)
    return f"{name}: {said}, as its card says" if said else f"{name}: its folder has no card that says a licence"


def stated_licence(name: str) -> str | None:
    """The licence in the metadata of the card in a model's folder."""
    card = Path(model_source(name)) / "README.md"
    said = re.search(r"\A---\n(?:(?!---).*\n)*?license: *(\S+)", card.read_text(encoding="utf-8")) if card.is_file() else None
    return said[1] if said else None
