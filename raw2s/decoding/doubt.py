"""How certain a language model was at every token of its own answers, by one teacher-forced pass."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from raw2s.decoding.heads import hidden_at, output_head
from raw2s.decoding.packing import PackedRows
from raw2s.decoding.scoring import continuation_figures, encode_checked
from raw2s.decoding.tokens import pad_id
from raw2s.losses import EvidenceOf, doubts, linear_rows
from raw2s.losses.doubt import MEASURES

ELEMENTS_AT_ONCE = 2**24
"""Of logits whose measures are taken together, of which several tensors of that size exist."""


def answer_doubts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    answers: Sequence[str],
    *,
    evidence: EvidenceOf | None,
    chat: bool = False,
) -> list[dict[str, list[float]]]:
    """The measures of `raw2s.losses.doubts` at every token of each prompt's answer, end marker included, by name.

    `choice` is of the answer's own token. The rest as in `target_logprobs`; the caller calls `model.eval()`.
    Raises ValueError when a prompt with its answer exceeds the model's positions.
    """
    ids, encoded = encode_checked(model, tokenizer, prompts, [[answer] for answer in answers], chat=chat)
    figures = continuation_figures(
        partial(_token_doubts, evidence=evidence), model, ids, [[own for own, _ in texts] for texts in encoded],
        padding=pad_id(tokenizer),
    )  # fmt: skip
    return [dict(zip(MEASURES, map(list, zip(*of_answer, strict=True)), strict=False)) for (of_answer,) in figures]


def _token_doubts(
    model: PreTrainedModel, rows: PackedRows, predictor_N: Tensor, token_N: Tensor, *, evidence: EvidenceOf | None
) -> Tensor:
    """(N, M), M the measures that there are, in the order of `MEASURES`."""
    head = output_head(model)
    hidden_NH, weight_VH = linear_rows.operands(hidden_at(model, rows, predictor_N), head.get_parameter("weight"))
    found = []
    for chunk, logits_CV in linear_rows.chunks_of_logits(hidden_NH, weight_VH, getattr(head, "bias", None)):
        at_once = max(1, ELEMENTS_AT_ONCE // len(weight_VH))
        for logits_RV, token_R in zip(logits_CV.split(at_once), token_N[chunk].split(at_once), strict=True):
            found.append(torch.stack(list(doubts(logits_RV, evidence, token_R).values()), dim=-1))
    return torch.cat(found)
