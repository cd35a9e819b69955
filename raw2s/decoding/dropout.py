"""How certain a model is by several passes that differ, as with dropout on: of the classes, or at every token of its own answers."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from raw2s.decoding.doubt import ELEMENTS_AT_ONCE
from raw2s.decoding.heads import hidden_at, output_head
from raw2s.decoding.logits import head_logits
from raw2s.decoding.packing import PackedRows
from raw2s.decoding.scoring import class_logits, continuation_figures, encode_checked
from raw2s.decoding.tokens import pad_id
from raw2s.losses import EvidenceOf, log_prediction, mixture_doubts


def class_pass_doubts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    passes: int,
    evidence: EvidenceOf | None,
    chat: bool = False,
) -> list[list[float]]:
    """`mixture_doubts` of so many passes over each prompt: (prompts, 2). The caller makes the passes differ.

    Raises ValueError as `class_logits`.
    """
    logits = (torch.from_numpy(class_logits(model, tokenizer, list(prompts), chat=chat)).double() for _ in range(passes))
    found: list[list[float]] = torch.stack(mixture_doubts(log_prediction(own, evidence) for own in logits), dim=-1).tolist()
    return found


def answer_pass_doubts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    answers: Sequence[str],
    *,
    passes: int,
    evidence: EvidenceOf | None,
    chat: bool = False,
) -> list[list[list[float]]]:
    """The same at every token of each prompt's answer, end marker included, teacher-forced over it: (prompts, tokens, 2).

    Raises ValueError when a prompt with its answer exceeds the model's positions.
    """
    ids, encoded = encode_checked(model, tokenizer, prompts, [[answer] for answer in answers], chat=chat)
    figures = continuation_figures(
        partial(_token_doubts, passes=passes, evidence=evidence), model, ids, [[own for own, _ in texts] for texts in encoded],
        padding=pad_id(tokenizer),
    )  # fmt: skip
    return [of_answer for (of_answer,) in figures]


def _token_doubts(
    model: PreTrainedModel, rows: PackedRows, predictor_N: Tensor, token_N: Tensor, *, passes: int, evidence: EvidenceOf | None
) -> Tensor:
    """(N, 2). Hidden states are kept of all passes, of the vocabulary's distributions a part at a time."""
    head = output_head(model)
    at_once = max(1, ELEMENTS_AT_ONCE // len(head.get_parameter("weight")))
    hidden_SNH = [hidden_at(model, rows, predictor_N) for _ in range(passes)]
    parts = zip(*(hidden_NH.split(at_once) for hidden_NH in hidden_SNH), strict=True)
    return torch.cat(
        [
            torch.stack(mixture_doubts(log_prediction(head_logits(head, own_RH), evidence) for own_RH in part), dim=-1)
            for part in parts
        ]
    )
