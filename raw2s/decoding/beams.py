"""Candidate targets: the top beams of one model for each prompt."""

from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from raw2s.decoding.beam_rules import NEVER
from raw2s.decoding.search import beam_search
from raw2s.decoding.tokens import check_context, decode_target, encode_prompt, pad_id


@dataclass(frozen=True)
class Candidate:
    """One generated target and its score under the model that generated it."""

    text: str
    token_logprob_sum: float
    """Natural log-probability of the generated tokens, end marker included when generated."""
    tokens: int
    """How many tokens that sums over."""
    ended: bool
    """Whether the end marker was generated; otherwise the candidate was cut at `max_new_tokens`."""

    @property
    def mean_logprob(self) -> float:
        """Nats per token."""
        return self.token_logprob_sum / self.tokens


@torch.inference_mode()
def generate_beams(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    *,
    beams: int,
    max_new_tokens: int,
    chat: bool = False,
    graph: bool = True,
) -> list[list[Candidate]]:
    """Top-`beams` candidates of every prompt by beam search, best mean token log-probability first; `beams=1` is greedy.

    Candidates of a prompt differ in text: of equal texts the best is kept, so there may be fewer than `beams`. All prompts go
    as one left-padded batch, and one (prompts * beams, V) fp32 score table is held per step: the caller picks the batch size,
    and calls `model.eval()`. The model's stored generation config has no say. `graph`: on a GPU, steps are replayed as a CUDA
    graph, which with its cache is kept for the next prompts; a model in training has no memory for that.
    Raises ValueError when a prompt and `max_new_tokens` exceed the model's positions. The candidates of Eq. 6 and 9.
    """
    if not prompts:
        return []
    rows = [encode_prompt(tokenizer, prompt, chat=chat) for prompt in prompts]
    for prompt, row in zip(prompts, rows, strict=True):
        check_context(model.config, len(row) + max_new_tokens, f"prompt {prompt[:60]!r} with {max_new_tokens} new tokens")
    ids = [torch.tensor(row) for row in rows]
    ids_BP = pad_sequence(ids, batch_first=True, padding_value=pad_id(tokenizer), padding_side="left").to(model.device)
    mask_BP = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True, padding_side="left").to(model.device)
    end_id = tokenizer.eos_token_id
    found = beam_search(model, ids_BP, mask_BP, beams=beams, max_new_tokens=max_new_tokens, end_id=end_id, graph=graph)
    candidates = []
    for ids_MT, tokens_M, mean_M in zip(
        found.ids_BMT.tolist(), found.tokens_BM.tolist(), found.mean_logprob_BM.tolist(), strict=True
    ):
        cut_M = [ids[:tokens] for ids, tokens in zip(ids_MT, tokens_M, strict=True)]
        candidates.append(
            [
                Candidate(decode_target(tokenizer, cut), mean * len(cut), len(cut), cut[-1] == end_id)
                for cut, mean in zip(cut_M, mean_M, strict=True)
                if mean > NEVER
            ]
        )
    return [distinct_best_first(of_prompt) for of_prompt in candidates]


def distinct_best_first(candidates: list[Candidate]) -> list[Candidate]:
    """The one rule that ranks candidates, whatever found them: the best mean first, of equal texts only the best."""
    best: dict[str, Candidate] = {}
    for candidate in sorted(candidates, key=lambda candidate: -candidate.mean_logprob):
        best.setdefault(candidate.text, candidate)
    return list(best.values())
