"""Test examples as the report shows them: groups by a rule, and of every answer which words are gold's."""

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

Part = tuple[Literal["same", "extra", "missing"], str]
"""A stretch of text that answer and gold share, that only the answer has, or only gold."""


@dataclass(frozen=True, kw_only=True)
class ShownAnswer:
    stage: str
    """The one that the model came out of, without the seed."""
    text: str
    right: bool
    """Whether the task reads it as gold."""


@dataclass(frozen=True, kw_only=True)
class ShownExample:
    prompt: str
    gold: str
    answers: list[ShownAnswer]


@dataclass(frozen=True, kw_only=True)
class ExampleGroup:
    """The test examples that a rule picks out."""

    title: str
    count: int
    """On the whole test set."""
    examples: list[ShownExample]
    """The first few of them."""


def parts_of(text: str, gold: str) -> list[Part]:
    """`text` against `gold` by words, spaces and signs: what is not "missing" is together `text`, what is not "extra" is `gold`."""
    ours, theirs = (re.findall(r"\s+|\w+|[^\w\s]", own) for own in (text, gold))
    parts: list[Part] = []
    for _, i, j, k, m in SequenceMatcher(None, theirs, ours, autojunk=False).get_opcodes():
        missing, said = "".join(theirs[i:j]), "".join(ours[k:m])
        if missing == said:
            parts.append(("same", said))
            continue
        parts += [("missing", missing)] if missing else []
        parts += [("extra", said)] if said else []
    return parts
