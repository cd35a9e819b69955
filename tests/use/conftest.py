"""Students' folders made by hand: a tiny model with a drawn head, and the sheet of one loss or another."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_students import CLASSES, sheet_of

from raw2s.models.load import load_model, load_tokenizer


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny-llama with a head over `CLASSES`, wide enough to be of several minds."""
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    model: Any = load_model("tiny-llama", "classes", tuple(CLASSES))
    torch.nn.init.normal_(model.score.weight, std=0.1)
    model.save_pretrained(folder)
    load_tokenizer("tiny-llama").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def folder_of(classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A student's folder: the classifier's files, or with `form="text"` tiny-llama's own, under a sheet of these fields."""
    writer = tmp_path_factory.mktemp("writer")
    load_model("tiny-llama", "text").save_pretrained(writer)
    load_tokenizer("tiny-llama").save_pretrained(writer)

    def make(**changes: Any) -> Path:
        folder = tmp_path_factory.mktemp("student")
        text = {"classes": [], "beams": 1, "max_new_tokens": 8} if changes.get("form") == "text" else {}
        for file in (writer if text else classifier).iterdir():
            (folder / file.name).symlink_to(file)
        sheet_of(**text | changes).write(folder)
        return folder

    return make
