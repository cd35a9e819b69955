"""SLURP's text (CC BY 4.0, shipped in `raw2s/tasks/data`) and the parts a run may use of it.

The official test set is tested on, devel validates, and train gives A (teachers) and B (student). The built-in tiny
models are pretrained on SLURP text too, so `POOL` train utterances are held out from them: with those models A and B
are drawn from the pool only.
"""

import gzip
import hashlib
import json
import random
import re
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Literal, TypedDict

from raw2s.section import Positive
from raw2s.tasks.task import Example, Halves, Part, TaskSection

POOL = 4_000
"""Train utterances that no built-in model has seen; 2,000 for A and 2,000 for B, as in the paper (section 5.1)."""

CREDIT = (
    "SLURP text, CC BY 4.0 (Bastianelli, Vanzo, Swietojanski, Rieser: SLURP, a spoken language understanding resource package, "
    "EMNLP 2020)"
)

Source = Literal["train", "devel", "test", "nlu_eval_extra"]


class Row(TypedDict):
    """One utterance; `entities` are (type, value) in the official scorer's form, in order."""

    id: int
    text: str
    annotation: str
    scenario: str
    action: str
    entities: list[list[str]]


def load_slurp(source: Source) -> list[Row]:
    """The rows of one shipped file, in the official order."""
    return list(_rows(source))


@cache
def _rows(source: Source) -> tuple[Row, ...]:
    data = files("raw2s.tasks").joinpath("data", f"slurp_{source}.jsonl.gz").read_bytes()
    return tuple(json.loads(line) for line in gzip.decompress(data).decode("utf-8").splitlines())


def normalized(text: str) -> str:
    """The form in which two sentences count as the same: lower case, letters and digits only, so that "whats app" is "whatsapp"."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def train_rows() -> list[Row]:
    """Train without the sentences that also occur in devel or test, and without its own repeats."""
    return list(_train())


@cache
def _train() -> tuple[Row, ...]:
    seen = {normalized(row["text"]) for source in ("devel", "test") for row in load_slurp(source)}
    kept = []
    for row in load_slurp("train"):
        key = normalized(row["text"])
        if key not in seen:
            seen.add(key)
            kept.append(row)
    return tuple(kept)


def pool_rows() -> list[Row]:
    """The `POOL` train rows held out from pretraining, by the hash of their id, so that no seed moves them."""
    return list(_pool())


@cache
def _pool() -> tuple[Row, ...]:
    in_order = sorted(_train(), key=lambda row: hashlib.sha256(str(row["id"]).encode()).hexdigest())
    return tuple(in_order[:POOL])


def pretraining_rows() -> list[Row]:
    """What the built-in models may see: train outside the pool and the NLU-Evaluation rows that no split holds."""
    pool = pool_rows()
    pool_ids = {row["id"] for row in pool}
    seen = {normalized(row["text"]) for row in [*pool, *load_slurp("devel"), *load_slurp("test")]}
    kept = []
    for row in [*(r for r in train_rows() if r["id"] not in pool_ids), *load_slurp("nlu_eval_extra")]:
        key = normalized(row["text"])
        if key and key not in seen:
            seen.add(key)
            kept.append(row)
    return kept


class SlurpSection(TaskSection):
    """What both SLURP tasks may be told."""

    n_teacher: Positive = 2000
    """Utterances in A, on which the teachers learn from ground truth."""
    n_student: Positive = 2000
    """Utterances in B, which the teachers label and the student learns from."""
    n_validation: Positive | None = 400
    """Utterances of the official devel set used for choosing checkpoints; null takes all 2,033."""
    n_test: Positive | None = 1000
    """Utterances of the official test set, a fixed seeded choice; null evaluates on all 2,974."""
    draw_from: Literal["pool", "train"] = "pool"
    """Where A and B come from: the 4,000 train utterances unseen by the built-in models, or the whole train split."""


def draw_examples(section: SlurpSection, example: Callable[[Row], Example], seed: int) -> Halves:
    """A and B: disjoint, and moving with the seed. Raises ValueError where together they are larger than what they are drawn from."""
    rows = pool_rows() if section.draw_from == "pool" else train_rows()
    wanted = section.n_teacher + section.n_student
    if wanted > len(rows):
        raise ValueError(
            f"task.n_teacher + task.n_student is {wanted}, but draw_from: {section.draw_from} holds {len(rows)} "
            "utterances; lower them, or set task.draw_from: train if no model was pretrained on SLURP"
        )
    random.Random(seed).shuffle(rows)
    examples = [example(row) for row in rows[:wanted]]
    return Halves(examples[: section.n_teacher], examples[section.n_teacher :])


def held_out_examples(section: SlurpSection, example: Callable[[Row], Example], part: Part) -> list[Example]:
    """Utterances of the official devel or test set, a prefix of one fixed shuffle; a size of None takes all.

    No seed moves them, so that runs and seeds are compared on the same utterances. Raises ValueError where it holds fewer.
    """
    rows = load_slurp("devel" if part == "validation" else "test")
    size = section.n_validation if part == "validation" else section.n_test
    if size is not None and size > len(rows):
        raise ValueError(
            f"task.n_{part}: {size} is more than the {len(rows):,} utterances there are; lower it, or set null for all"
        )
    random.Random(0).shuffle(rows)
    return [example(row) for row in rows[:size]]
