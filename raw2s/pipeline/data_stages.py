"""The stages that lay down a task's examples: A and B of one seed, validation, test."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from raw2s.pipeline.jsonl import read_jsonl, write_jsonl
from raw2s.pipeline.stage import Metrics, Stage, Work
from raw2s.tasks import Example


@dataclass(frozen=True)
class Drawn:
    """Examples by the name of their part; in a key by their content, so that changed data are other data whatever drew them."""

    parts: Mapping[str, Sequence[Example]]

    @cached_property
    def content(self) -> str:
        """16 hex digits over all examples in order."""
        text = json.dumps(self.parts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Examples(Stage):
    """Examples as prompts and targets, one JSON lines file a part."""

    kind: ClassVar[str] = "split"
    drawn: Drawn

    def run(self, work: Work) -> Metrics:
        for part, examples in self.drawn.parts.items():
            write_jsonl(self.file(work.out, part), examples)
        return {part: len(examples) for part, examples in self.drawn.parts.items()}

    @staticmethod
    def file(folder: Path, part: str) -> Path:
        return folder / f"{part}.jsonl"

    def read(self, folder: Path, part: str) -> list[Example]:
        """The examples of `teacher` (A), `student` (B), `validation` or `test` from the artifact's folder."""
        return read_jsonl(self.file(folder, part))

    def prompts(self, folder: Path, part: str) -> dict[int, str]:
        """By id, in order."""
        return {example["id"]: example["prompt"] for example in self.read(folder, part)}
