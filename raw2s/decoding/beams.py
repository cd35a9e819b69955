"""Candidate targets: the top beams of one model for each prompt."""

from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

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
        return self.token_logprob_sum / self.tokens


@torch.inference_mode()
def generate_beams(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], *, beams: int, max_new_tokens: int
) -> list[list[Candidate]]:
    """Top-`beams` candidates of every prompt by beam search, best mean token log-probability first; `beams=1` is greedy.

    Candidates of a prompt differ in text: of equal texts the best is kept, so there may be fewer than `beams`. All prompts go
    as one left-padded batch, and one (prompts * beams, V) fp32 score table is held per step: the caller picks the batch size,
    and calls `model.eval()`. The model's stored generation config has no say.
    Raises ValueError when a prompt and `max_new_tokens` exceed the model's positions. The candidates of Eq. 6 and 9.
    """
    if not prompts:
        return []
    rows = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    for prompt, row in zip(prompts, rows, strict=True):
        check_context(model.config, len(row) + max_new_tokens, f"prompt {prompt[:60]!r} with {max_new_tokens} new tokens")
    ids = [torch.tensor(row) for row in rows]
    ids_BP = pad_sequence(ids, batch_first=True, padding_value=pad_id(tokenizer), padding_side="left").to(model.device)
    mask_BP = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True, padding_side="left").to(model.device)
    config = GenerationConfig(
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        length_penalty=1.0,  # the beam's score is the mean token log-probability: the same rule as ours
        early_stopping=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=pad_id(tokenizer),
        return_dict_in_generate=True,
        output_scores=True,
    )
    stored = model.generation_config
    model.generation_config = config  # generate() takes what we leave unset from here, such as a stored repetition_penalty
    try:
        output = model.generate(input_ids=ids_BP, attention_mask=mask_BP, generation_config=config)  # type: ignore[operator]
    finally:
        model.generation_config = stored

    ids_RT = output.sequences[:, ids_BP.shape[1] :]  # R = B * beams rows
    is_end_RT = ids_RT == tokenizer.eos_token_id
    ended_R = is_end_RT.any(dim=1)
    tokens_R = torch.where(ended_R, is_end_RT.int().argmax(dim=1) + 1, ids_RT.shape[1])
    if beams == 1:
        logprob_RT = torch.stack(output.scores, dim=1).log_softmax(dim=2).gather(2, ids_RT[:, :, None])[:, :, 0]
        generated_RT = torch.arange(ids_RT.shape[1], device=ids_RT.device) < tokens_R[:, None]
        sum_R = torch.where(generated_RT, logprob_RT, 0.0).sum(dim=1)
    else:
        sum_R = output.sequences_scores * tokens_R
    candidates = [
        Candidate(decode_target(tokenizer, row[:tokens]), total, tokens, ended)
        for row, total, tokens, ended in zip(ids_RT.tolist(), sum_R.tolist(), tokens_R.tolist(), ended_R.tolist(), strict=True)
    ]
    return [_distinct_best_first(candidates[start : start + beams]) for start in range(0, len(candidates), beams)]


def _distinct_best_first(candidates: list[Candidate]) -> list[Candidate]:
    best: dict[str, Candidate] = {}
    for candidate in sorted(candidates, key=lambda candidate: -candidate.mean_logprob):
        best.setdefault(candidate.text, candidate)
    return list(best.values())
