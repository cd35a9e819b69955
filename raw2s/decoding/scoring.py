"""Teacher-forced scores: the log-probability of given targets, and the logits of a classifier."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from raw2s.decoding.heads import hidden_at, layout_for, output_head, require_plain_head
from raw2s.decoding.logits import head_logits
from raw2s.decoding.packing import PackedRows, TokenTree, pack_rows, packable, token_tree
from raw2s.decoding.tokens import check_context, encode_prompt, encode_target, pad_id
from raw2s.losses import linear_log_probs

SHARING_TOKENS = 2048
"""Target tokens that share one forward of their prompt, or as many as it has itself: attention costs the square of a row."""
HEAD_ELEMENTS = 2**20
"""Logits that a CPU holds at a time: 4 MB in fp32."""
MIN_HEAD_COLUMNS = 256
"""Fewer columns of the vocabulary at a time make the product slow."""
BATCH_TOKENS = {"cpu": 2048, "cuda": 16384}
"""Tokens of a forward pass unless the caller says: what keeps the device busy, and on a CPU stays near its caches."""


TokenFigures = Callable[[PreTrainedModel, PackedRows, Tensor, Tensor], Tensor]
"""(model, rows, predictor_N, token_N) -> figures of N tokens, each under the logits at its flat index in the rows: (N,) or (N, M)."""


@dataclass(frozen=True)
class ScoredTarget:
    """For every token of a target, end marker included: log P(y_t | x, y_<t), natural, and its character span in the text."""

    logprobs: list[float]
    offsets: list[tuple[int, int]]


def target_logprobs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    targets: Sequence[Sequence[str]],
    *,
    max_tokens_per_batch: int | None = None,
    chat: bool = False,
) -> list[list[ScoredTarget]]:
    """Each prompt's targets under the model, teacher-forced: the scores of Eq. 6 (joint decoding), 7 (words) and 9 (preference).

    The ids are `encode_prompt`'s and `encode_target`'s; the rest is `continuation_logprobs`. The caller calls `model.eval()`.
    Raises ValueError when a prompt with a target exceeds the model's positions.
    """
    ids, encoded = encode_checked(model, tokenizer, prompts, targets, chat=chat)
    logprobs = continuation_logprobs(
        model, ids, [[target_ids for target_ids, _ in texts] for texts in encoded],
        padding=pad_id(tokenizer), max_tokens_per_batch=max_tokens_per_batch,
    )  # fmt: skip
    return [
        [ScoredTarget(scores, offsets) for scores, (_, offsets) in zip(scored, texts, strict=True)]
        for scored, texts in zip(logprobs, encoded, strict=True)
    ]


def encode_checked(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    targets: Sequence[Sequence[str]],
    *,
    chat: bool,
) -> tuple[list[list[int]], list[list[tuple[list[int], list[tuple[int, int]]]]]]:
    """The prompts' ids, and each one's targets' ids and offsets. Raises ValueError where they exceed the model's positions."""
    ids = [encode_prompt(tokenizer, prompt, chat=chat) for prompt in prompts]
    encoded = [[encode_target(tokenizer, text) for text in texts] for texts in targets]
    for prompt, prompt_ids, texts in zip(prompts, ids, encoded, strict=True):
        longest = max((len(target_ids) for target_ids, _ in texts), default=0)
        check_context(model.config, len(prompt_ids) + longest, f"prompt {prompt[:60]!r} with its target")
    return ids, encoded


def continuation_logprobs(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    continuations: Sequence[Sequence[list[int]]],
    *,
    padding: int,
    max_tokens_per_batch: int | None = None,
) -> list[list[list[float]]]:
    """Natural log-probability of every token of each prompt's continuations: per prompt and continuation a list as long as it.

    As `continuation_figures`, with a block of the logits at a time and the softmax in fp32.
    """
    return continuation_figures(
        _token_logprobs, model, prompts, continuations, padding=padding, max_tokens_per_batch=max_tokens_per_batch
    )


@torch.inference_mode()
def continuation_figures(
    of_tokens: TokenFigures,
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    continuations: Sequence[Sequence[list[int]]],
    *,
    padding: int,
    max_tokens_per_batch: int | None = None,
) -> list[list[list[Any]]]:
    """What `of_tokens` says of every token of each prompt's continuations: per prompt and continuation a list as long as it.

    A prompt is forwarded once for all its continuations, and so is a prefix that some of them share; where the model is not
    `packable`, once for each. Batches hold at most `max_tokens_per_batch` tokens (default `BATCH_TOKENS`) and a little padding of
    id `padding`, or one prompt. The vocabulary head runs once for each token that
    predicts.
    Raises ValueError for a model that bends its logits after the head, and for a recurrent one.
    """
    require_plain_head(model.config)
    sharing = SHARING_TOKENS if packable(model) else 0
    parts = [
        (p, part) for p, texts in enumerate(continuations)
        for part in _runs([len(text) for text in texts], range(len(texts)), sharing and max(sharing, len(prompts[p])))
    ]  # fmt: skip
    trees = [token_tree(prompts[p], [continuations[p][c] for c in part]) for p, part in parts]
    scored: list[tuple[list[tuple[int, int]], Tensor]] = []
    for batch in _batches(model, trees, max_tokens_per_batch):
        rows, starts = _packed(model, [trees[i] for i in batch], padding)
        predictors = [
            start + node for i, start in zip(batch, starts, strict=True) for text in trees[i].predictors for node in text
        ]
        texts = [(p, c) for p, part in (parts[i] for i in batch) for c in part]
        tokens = [token for p, c in texts for token in continuations[p][c]]
        predictor_N, token_N = (torch.tensor(ids, device=model.device) for ids in (predictors, tokens))
        scored.append((texts, of_tokens(model, rows, predictor_N, token_N)))
    figures: list[list[list[Any]]] = [[[] for _ in texts] for texts in continuations]
    for texts, of_N in scored:  # once all are under way: a device waits for no batch to be packed
        values = iter(of_N.tolist())
        for p, c in texts:
            figures[p][c] = list(islice(values, len(continuations[p][c])))
    return figures


def _token_logprobs(model: PreTrainedModel, rows: PackedRows, predictor_N: Tensor, token_N: Tensor) -> Tensor:
    """Log-probability of N tokens, each under the logits at its flat index in the rows: (N,), fp32 at least."""
    if model.device.type == "cpu":
        return _logprobs_by_columns(model, rows, predictor_N, token_N)
    head = output_head(model)
    hidden_NH = hidden_at(model, rows, predictor_N)
    return linear_log_probs(hidden_NH, head.get_parameter("weight"), token_N, bias_V=getattr(head, "bias", None))[0]


def _logprobs_by_columns(model: PreTrainedModel, rows: PackedRows, predictor_N: Tensor, token_N: Tensor) -> Tensor:
    """The head a block of the vocabulary at a time, for all rows at once: its weights are read once, the block stays in the
    cache, and the softmax's sum runs along."""
    index_U, which_N = predictor_N.unique(return_inverse=True)  # U tokens predict; where texts part, one predicts several
    hidden_UH, head = hidden_at(model, rows, index_U), output_head(model)
    weight_VH, bias_V = head.get_parameter("weight"), getattr(head, "bias", None)
    dtype = torch.promote_types(weight_VH.dtype, torch.float32)
    columns = max(MIN_HEAD_COLUMNS, HEAD_ELEMENTS // len(index_U))
    memory_UC = hidden_UH.new_empty(len(index_U), columns)  # fresh memory for every block would cost its page faults
    logit_N = torch.empty(len(token_N), dtype=dtype, device=token_N.device)
    normalizer_U = torch.full((len(index_U),), -torch.inf, dtype=dtype, device=token_N.device)
    for start in range(0, len(weight_VH), columns):
        weight_CH = weight_VH[start : start + columns]
        logits_UC = torch.mm(hidden_UH, weight_CH.T, out=memory_UC[:, : len(weight_CH)])
        if bias_V is not None:
            logits_UC += bias_V[start : start + columns]
        logits_UC = logits_UC.to(dtype)
        own = ((start <= token_N) & (token_N < start + columns)).nonzero()[:, 0]
        logit_N[own] = logits_UC[which_N[own], token_N[own] - start]
        normalizer_U = torch.logaddexp(normalizer_U, logits_UC.logsumexp(dim=1))
    return logit_N - normalizer_U[which_N]


@torch.inference_mode()
def class_logits(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    *,
    max_tokens_per_batch: int | None = None,
    chat: bool = False,
) -> np.ndarray:
    """Logits of a sequence-classification model for every prompt: (len(prompts), K), fp32.

    What `model(...).logits` gives for each prompt alone: the `score` head at the prompt's last token. That token is found by
    the prompt's length, not by looking for `config.pad_token_id`, so a pad token that is also the end marker does no harm.
    Batched as in `continuation_logprobs`; the caller calls `model.eval()`.
    Raises ValueError when a prompt exceeds the model's positions, and for a recurrent model.
    """
    ids = [encode_prompt(tokenizer, prompt, chat=chat) for prompt in prompts]
    for prompt, prompt_ids in zip(prompts, ids, strict=True):
        check_context(model.config, len(prompt_ids), f"prompt {prompt[:60]!r}")
    trees = [token_tree(prompt_ids, []) for prompt_ids in ids]
    logits = np.empty((len(prompts), model.config.num_labels), dtype=np.float32)  # type: ignore[type-var]
    for batch in _batches(model, trees, max_tokens_per_batch):
        rows, starts = _packed(model, [trees[i] for i in batch], pad_id(tokenizer))
        last_P = torch.tensor(
            [start + len(trees[i].ids) - 1 for i, start in zip(batch, starts, strict=True)], device=model.device
        )
        logits[batch] = head_logits(output_head(model), hidden_at(model, rows, last_P)).float().cpu().numpy()
    return logits


def _packed(model: PreTrainedModel, trees: list[TokenTree], padding: int) -> tuple[PackedRows, list[int]]:
    hidden_size = model.config.get_text_config().hidden_size
    rows, starts = pack_rows(trees, padding=padding, hidden_size=hidden_size, layout=layout_for(model))
    return rows.to(model.device), starts


def _batches(model: PreTrainedModel, trees: list[TokenTree], max_tokens: int | None) -> Iterator[list[int]]:
    """The trees' indices, like lengths together; where each batch is one row, in rows of like width, for a new width costs."""
    lengths = [len(tree.ids) for tree in trees]
    most = max_tokens or BATCH_TOKENS[model.device.type]
    runs = partial(_runs, lengths, sorted(range(len(trees)), key=lengths.__getitem__))
    if layout_for(model) == "one_row":
        most = _least_that_needs_no_more(most, lambda tokens: len(list(runs(tokens))))
    return runs(most)


def _least_that_needs_no_more(most: int, batches: Callable[[int], int]) -> int:
    """The smallest budget up to `most` that gives as few batches as `most` does."""
    fewest = batches(most)
    return bisect_left(range(most), True, key=lambda tokens: batches(tokens) <= fewest)


def _runs(lengths: Sequence[int], order: Iterable[int], most: int) -> Iterator[list[int]]:
    """Indices in runs of `order`, each at most `most` long together, or one index alone."""
    run: list[int] = []
    total = 0
    for index in order:
        if run and total + lengths[index] > most:
            yield run
            run, total = [], 0
        run.append(index)
        total += lengths[index]
    if run:
        yield run
