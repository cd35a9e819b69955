"""The built-in tiny models: the text they were and were not pretrained on, and the perplexity on their cards.

Made by `jobs/pretrain_tiny.py`; each folder holds safetensors, tokenizer, card.json and README.md (the model card).
"""

import math
import random
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from raw2s.models.source import BUILTIN_FOLDER, builtin_card
from raw2s.tasks import TaskSection
from raw2s.tasks.slurp import Row, SlurpSection
from raw2s.tasks.slurp import pretraining_rows as all_rows
from raw2s.tasks.slurp_slots import SlotsSection

HELD_OUT = 400
"""Rows of the pretraining text that no tiny model learns from: the perplexity on the card is theirs."""
SUBSTITUTED = 0.5
"""Share of sentences in which every slot value is replaced by another value of its type, so that epochs differ."""

FORMS = 3
"""In how many forms the student's text says what a sentence holds."""

READ = {
    "brackets": "sentences with their gold slots in brackets",
    "annotated": "sentences followed by their gold slots, scenario and action",
}
"""By notation, what a model was pretrained on."""

_SLOT = re.compile(r"\[(\w+) : ([^\]]*)\]")


def builtin_refusal(task: TaskSection, source: str) -> str | None:
    """Why the model at `source` cannot learn this task honestly or at all, if it is a built-in one; else None."""
    name = Path(source).name
    if Path(source).parent != BUILTIN_FOLDER or not isinstance(task, SlurpSection):
        return None
    if task.draw_from != "pool":
        return f"{name} was pretrained on SLURP's train split outside the pool; set task.draw_from: pool"
    if isinstance(task, SlotsSection) and task.prompt == "paper":
        return f"the paper's prompt is longer than the {name}'s 256 positions; set task.prompt: short"
    return None


def pretraining_of(models: Sequence[str]) -> str | None:
    """A sentence on what the built-in ones of these models have read, those that read alike together; None where there are none."""
    by_notation: dict[str, list[str]] = {}
    for model in models:
        if card := builtin_card(model):
            by_notation.setdefault(card["notation"], []).append(card["name"])
    read = "; ".join(f"{', '.join(names)} read {READ[notation]}" for notation, names in by_notation.items())
    return f"Before, on SLURP's train split outside A, B, devel and test: {read}." if read else None


def split_rows() -> tuple[list[Row], list[Row]]:
    """(learned from, held out)."""
    rows = all_rows()
    random.Random(0).shuffle(rows)
    return rows[HELD_OUT:], rows[:HELD_OUT]


def held_out_texts(notation: str) -> list[str]:
    return [_text(row["annotation"], row, notation, index % FORMS) for index, row in enumerate(split_rows()[1])]


def pretraining_texts(rows: list[Row], notation: str, rng: random.Random) -> list[str]:
    """One text a row; half of them with their slot values swapped for others of the same type."""
    values: dict[str, list[str]] = {}
    for row in rows:
        for kind, value in _SLOT.findall(row["annotation"]):
            values.setdefault(kind, []).append(value)
    texts = []
    for row in rows:
        annotation = row["annotation"]
        if rng.random() < SUBSTITUTED:
            annotation = _SLOT.sub(lambda m: f"[{m[1]} : {rng.choice(values[m[1]])}]", annotation)
        texts.append(_text(annotation, row, notation, rng.randrange(FORMS)))
    return texts


def _text(annotation: str, row: Row, notation: str, form: int) -> str:
    """`brackets`: the annotated sentence. `annotated`: the sentence, then what it holds in one of `FORMS` forms.

    The forms are the bracketed sentence, a list of slots, and a JSON record of scenario, action and the bare slot values: none is
    the task's own, but a student that has met JSON does not have to learn its quotation marks from doubtful labels.
    """
    if notation == "brackets":
        return annotation
    sentence = _SLOT.sub(lambda m: m[2], annotation)
    if form == 0:
        return f"{sentence}\n{annotation}\n{row['scenario']} {row['action']}"
    if form == 1:
        slots = "".join(f"\n{kind} = {value}" for kind, value in _SLOT.findall(annotation))
        return f"{sentence}\n{row['scenario']} {row['action']}{slots}"
    values = " , ".join(f'"{value}"' for _, value in _SLOT.findall(annotation))
    record = f'"scenario" : "{row["scenario"]}" , "action" : "{row["action"]}" , "values" : [ {values} ]'
    return f"{sentence}\n{{ {record} }}"


@torch.no_grad()
def held_out_perplexity(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> float:
    """exp of the mean token negative log-likelihood over `texts`, end marker included, one text at a time."""
    model.eval()
    total, count = 0.0, 0
    for text in texts:
        ids = torch.tensor([[*tokenizer(text)["input_ids"], tokenizer.eos_token_id]])
        total += model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    return math.exp(total / count)
