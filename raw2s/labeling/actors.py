"""The Ray Data actors: one loaded model each, a unit of prompts in, its answers out.

A unit is one row of the dataset and one padded batch of the model. Units are cut once, by `prompt_units`, so a result never
depends on how Ray Data groups rows or on which actor takes them. Nested answers travel as JSON in one string column: Ray Data
would turn ragged lists into tensors where it can.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import ray.data
from ray.data import ActorPoolStrategy, Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from raw2s.decoding import word_scores
from raw2s.decoding.beams import generate_beams
from raw2s.decoding.scoring import class_logits, target_logprobs
from raw2s.models import Kind
from raw2s.models.load import load_model, load_tokenizer

Unit = dict[str, Any]


@dataclass(frozen=True)
class Pool:
    """Where one model decodes: its folder, and the actors and resources it gets."""

    name: str
    model: str
    replicas: tuple[int, int]
    num_cpus: float
    num_gpus: float

    def load(self, kind: Kind, classes: tuple[str, ...] = ()) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The model on this actor's device, and its tokenizer."""
        model: Any = load_model(self.model, kind, classes)
        return model.to("cuda" if self.num_gpus else "cpu"), load_tokenizer(self.model)


@dataclass(frozen=True)
class Progress:
    """Counts finished prompts on a `Board` actor."""

    board: Any
    name: str
    total: int

    def add(self, prompts: int, note: str) -> None:
        if self.board is not None:
            self.board.advance.remote(self.name, prompts, self.total, note)


class BeamActor:
    """Adds `beams:<name>`: per prompt a list of `Candidate` dicts, best first."""

    def __init__(self, pool: Pool, beams: int, max_new_tokens: int, progress: Progress) -> None:
        self.pool, self.beams, self.max_new_tokens, self.progress = pool, beams, max_new_tokens, progress
        self.model, self.tokenizer = pool.load("generation")

    def __call__(self, unit: Unit) -> Unit:
        prompts = list(unit["prompts"])
        found = generate_beams(self.model, self.tokenizer, prompts, beams=self.beams, max_new_tokens=self.max_new_tokens)
        self.progress.add(len(prompts), f"beams of {self.pool.name}")
        return unit | {f"beams:{self.pool.name}": json.dumps([[asdict(c) for c in candidates] for candidates in found])}


class ScoreActor:
    """Adds `scores:<name>`: per prompt, per candidate text, the word log-probabilities (end marker last) and the token count."""

    def __init__(self, pool: Pool, progress: Progress) -> None:
        self.pool, self.progress = pool, progress
        self.model, self.tokenizer = pool.load("generation")

    def __call__(self, unit: Unit) -> Unit:
        prompts, candidates = list(unit["prompts"]), json.loads(unit["candidates"])
        scored = target_logprobs(self.model, self.tokenizer, prompts, candidates)
        nested = [
            [
                {"words": [float(w) for w in word_scores(text, score.offsets, score.logprobs)], "tokens": len(score.logprobs)}
                for text, score in zip(texts, scores, strict=True)
            ]
            for texts, scores in zip(candidates, scored, strict=True)
        ]
        self.progress.add(len(prompts), f"scores of {self.pool.name}")
        return unit | {f"scores:{self.pool.name}": json.dumps(nested)}


class ClassActor:
    """Adds `logits:<name>`: per prompt the classifier's logits."""

    def __init__(self, pool: Pool, classes: tuple[str, ...], progress: Progress) -> None:
        self.pool, self.progress = pool, progress
        self.model, self.tokenizer = pool.load("classification", classes)

    def __call__(self, unit: Unit) -> Unit:
        prompts = list(unit["prompts"])
        logits: np.ndarray = class_logits(self.model, self.tokenizer, prompts)
        self.progress.add(len(prompts), f"classes of {self.pool.name}")
        return unit | {f"logits:{self.pool.name}": json.dumps(logits.tolist())}


def prompt_units(ids: list[int], prompts: list[str], size: int) -> list[Unit]:
    """The prompts in units of `size`, like lengths together: less padding, and the same units in every run."""
    order = sorted(range(len(ids)), key=lambda i: (len(prompts[i]), ids[i]))
    chunks = [order[start : start + size] for start in range(0, len(order), size)]
    return [{"ids": [ids[i] for i in chunk], "prompts": [prompts[i] for i in chunk]} for chunk in chunks]


def dataset_of(units: list[Unit]) -> Dataset:
    """One block a unit, so that every replica of a pool finds work."""
    return ray.data.from_items(units, override_num_blocks=len(units))


def through(dataset: Dataset, actor: type, pool: Pool, **arguments: Any) -> Dataset:
    """Send every unit through `pool`'s actors; several calls in a row run side by side, each pool on its own devices."""
    low, high = pool.replicas
    return dataset.map(
        actor, fn_constructor_kwargs={"pool": pool, **arguments}, num_cpus=pool.num_cpus, num_gpus=pool.num_gpus,
        compute=ActorPoolStrategy(min_size=low, max_size=high),
    )  # fmt: skip


def by_id(units: list[Unit], column: str) -> dict[int, Any]:
    """The answers in `column`, one per prompt, under their ids: Ray Data keeps no order."""
    return {i: answer for unit in units for i, answer in zip(unit["ids"], json.loads(unit[column]), strict=True)}
