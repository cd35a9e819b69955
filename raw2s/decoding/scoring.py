"""Teacher-forced scores: the log-probability of given targets, and the logits of a classifier."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from raw2s.decoding.heads import logits_at, require_plain_head
from raw2s.decoding.tokens import check_context, encode_prompt, encode_target, pad_id


@torch.inference_mode()
def target_logprobs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pairs: list[tuple[str, str]], *, max_tokens_per_batch: int = 8192
) -> list[list[float]]:
    """Natural log-probability of every token of each (prompt, target)'s target, end marker included: log P(y_t | x, y_<t).

    One list per pair, in order, as long as `encode_target`'s ids. Pairs are batched by length, at most `max_tokens_per_batch`
    padded tokens together (one pair at least); the vocabulary head runs at target positions only, its softmax in fp32. The
    caller calls `model.eval()`.
    Raises ValueError when a pair exceeds the model's positions, and for a model that bends its logits after the head.
    The scores of Eq. 6 (joint decoding), 7 (word scores) and 9 (preference).
    """
    require_plain_head(model.config)
    prompts = [encode_prompt(tokenizer, prompt) for prompt, _ in pairs]
    targets = [encode_target(tokenizer, target)[0] for _, target in pairs]
    for (prompt, _), prompt_ids, target_ids in zip(pairs, prompts, targets, strict=True):
        check_context(model.config, len(prompt_ids) + len(target_ids), f"prompt {prompt[:60]!r} with its target")
    # The last token is only predicted, never read.
    rows = [prompt_ids + target_ids[:-1] for prompt_ids, target_ids in zip(prompts, targets, strict=True)]

    logprobs: list[list[float]] = [[] for _ in pairs]
    for batch in _length_batches([len(row) for row in rows], max_tokens_per_batch):
        ids_BT, mask_BT, length_B = _padded([rows[index] for index in batch], pad_id(tokenizer), model.device)
        counts = [len(targets[index]) for index in batch]
        position_T = torch.arange(ids_BT.shape[1], device=model.device)
        end_B1 = length_B[:, None]
        predicts_target_BT = (position_T >= end_B1 - torch.tensor(counts, device=model.device)[:, None]) & (position_T < end_B1)
        row_N, column_N = predicts_target_BT.nonzero(as_tuple=True)  # N: the batch's target tokens in a row
        logits_NV = logits_at(model, ids_BT, mask_BT, row_N, column_N).float()
        target_N = torch.tensor([token for index in batch for token in targets[index]], device=model.device)
        logprob_N = -F.cross_entropy(logits_NV, target_N, reduction="none")
        for index, logprob_t in zip(batch, logprob_N.cpu().split(counts), strict=True):
            logprobs[index] = logprob_t.tolist()
    return logprobs


@torch.inference_mode()
def class_logits(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], *, max_tokens_per_batch: int = 8192
) -> np.ndarray:
    """Logits of a sequence-classification model for every prompt: (len(prompts), K), fp32.

    What `model(...).logits` gives for each prompt alone: the `score` head at the prompt's last token. That token is found by
    the prompt's length, not by looking for `config.pad_token_id`, so a pad token that is also the end marker does no harm.
    Batched as in `target_logprobs`; the caller calls `model.eval()`.
    Raises ValueError when a prompt exceeds the model's positions.
    """
    rows = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    for prompt, row in zip(prompts, rows, strict=True):
        check_context(model.config, len(row), f"prompt {prompt[:60]!r}")
    logits = np.empty((len(prompts), model.config.num_labels), dtype=np.float32)  # type: ignore[type-var]
    for batch in _length_batches([len(row) for row in rows], max_tokens_per_batch):
        ids_BT, mask_BT, length_B = _padded([rows[index] for index in batch], pad_id(tokenizer), model.device)
        every_row = torch.arange(len(batch), device=model.device)
        logits[batch] = logits_at(model, ids_BT, mask_BT, every_row, length_B - 1).float().cpu().numpy()
    return logits


def _padded(rows: list[list[int]], filler: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of ids padded on the right, their attention mask, both (B, T), and their lengths (B,)."""
    ids_BT = pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=filler).to(device)
    length_B = torch.tensor([len(row) for row in rows], device=device)
    mask_BT = (torch.arange(ids_BT.shape[1], device=device) < length_B[:, None]).long()
    return ids_BT, mask_BT, length_B


def _length_batches(lengths: list[int], max_tokens: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, each padded to at most `max_tokens` tokens or holding one row."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[index] * (len(batch) + 1) > max_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
