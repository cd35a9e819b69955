"""How certain a model was of its own answers by passes with dropout on, over its actors."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from raw2s.decoding.dropout import answer_pass_doubts, class_pass_doubts
from raw2s.labeling.actors import load_to_score
from raw2s.labeling.prompts import Unit
from raw2s.labeling.units import Answered, Pool, PromptProgress, run_pass
from raw2s.labels.table import DROPOUT_DOUBTS, Answer
from raw2s.losses.doubt import DROPOUT_MEASURES
from raw2s.methods import LossSection, evidence_by
from raw2s.models.dropout import dropping_out
from raw2s.storage import Place


@dataclass(frozen=True, kw_only=True)
class Passes:
    """How often a model is asked, and how its logits are read."""

    count: int
    loss: LossSection | None
    """What it was trained with, where that says how."""
    classes: tuple[str, ...]
    """Of a classifier; none of a language model."""


def dropout_doubts_of(pool: Pool, units: list[Unit], *, passes: Passes, folder: Place, progress: PromptProgress) -> Answered:
    """`table.DROPOUT_DOUBTS` of every prompt; of a language model at the tokens of its one candidate, its own answer.

    Finished units lie in `folder` and are not forwarded again.
    """
    return run_pass(partial(DropoutActor, pool, passes), units, pool, schema=DROPOUT_DOUBTS, folder=folder, progress=progress)


class DropoutActor:
    """`table.DROPOUT_DOUBTS`: per prompt and its one candidate, the model's own answer."""

    def __init__(self, pool: Pool, passes: Passes) -> None:
        self.classes = bool(passes.classes)
        self.model, self.tokenizer = load_to_score(pool, "classes" if self.classes else "text", passes.classes)
        self.how: dict[str, Any] = {"passes": passes.count, "evidence": evidence_by(passes.loss), "chat": pool.chat}

    def __call__(self, unit: Unit) -> list[Answer]:
        with dropping_out(self.model):
            if self.classes:
                found = [[own] for own in class_pass_doubts(self.model, self.tokenizer, unit["prompts"], **self.how)]
            else:
                answers = [text for (text,) in unit["candidates"]]
                found = answer_pass_doubts(self.model, self.tokenizer, unit["prompts"], answers, **self.how)
        return [dict(zip(DROPOUT_MEASURES, map(list, zip(*own, strict=True)), strict=True)) for own in found]
