"""Rows to tensors: which rows make a step, which of them a worker takes, and how they are padded.

Every rank computes the same plan from the seed, so no row is dropped, none is seen twice in an epoch, and the loss of a
step is divided by the whole step's total, however its rows fall on workers and micro-batches.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedTokenizerBase

from raw2s.decoding import word_of_piece
from raw2s.decoding.tokens import encode_prompt, encode_target, pad_id
from raw2s.training.rows import Form, TrainingRow


@dataclass(frozen=True)
class TokenSequence:
    """One target sequence in the student's pieces; `words` is the word of each piece, `word_logprobs` (teachers, words)."""

    ids: list[int]
    words: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=lambda: [1.0])
    word_logprobs: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True)
class TokenRow:
    """A tokenised row; `total` is what it adds to the step's divisor: weighted target tokens, or 1."""

    prompt: list[int]
    sequences: list[TokenSequence]
    probabilities: list[float]
    reference: tuple[float, ...]
    total: float

    @property
    def length(self) -> int:
        return len(self.prompt) + max((len(s.ids) for s in self.sequences), default=0)


@dataclass
class Batch:
    """One micro-batch. B sequences, T positions, N target tokens of all sequences laid end to end, P prompts, I teachers.

    `row_N` and `column_N` point at the position that predicts each target token; in classification, N = P and they point at
    each prompt's last token.
    """

    input_ids_BT: torch.Tensor
    attention_mask_BT: torch.Tensor
    row_N: torch.Tensor
    column_N: torch.Tensor
    token_N: torch.Tensor
    weight_IN: torch.Tensor
    word_N: torch.Tensor
    word_logprob_IW: torch.Tensor | None
    probabilities_PK: torch.Tensor
    reference_P2: torch.Tensor

    def to(self, device: torch.device) -> "Batch":
        moved = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in vars(self).items()}
        return Batch(**moved)


def tokenize_row(row: TrainingRow, tokenizer: PreTrainedTokenizerBase, form: Form) -> TokenRow:
    prompt = encode_prompt(tokenizer, row["prompt"])
    if form == "classification":
        return TokenRow(prompt, [], row["probabilities"], (), 1.0)
    if form == "preference":
        pair = [TokenSequence(encode_target(tokenizer, row[side])[0]) for side in ("chosen", "rejected")]
        return TokenRow(prompt, pair, [], (row["ref_chosen"], row["ref_rejected"]), 1.0)
    sequences = []
    for target in row["targets"]:
        ids, offsets = encode_target(tokenizer, target["text"])
        words = word_of_piece(target["text"], offsets)
        sequences.append(TokenSequence(ids, words, target["weights"], target.get("word_logprobs", [])))
    return TokenRow(prompt, sequences, [], (), sum(len(s.ids) * sum(s.weights) for s in sequences))


def steps_in_epoch(n_rows: int, batch_size: int) -> int:
    return -(-n_rows // batch_size)


def plan_epoch(
    lengths: Sequence[int], *, batch_size: int, micro_batches: int, workers: int, rank: int, seed: int | None
) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Per step: the indices of all its rows, and this rank's share of them as `micro_batches` lists.

    Shuffled by `seed` (None keeps the order); inside a step, rows of like length share a micro-batch. In a short last step
    a list may be empty: every rank makes the same number of forward passes all the same.
    """
    order = list(range(len(lengths)))
    if seed is not None:
        random.Random(seed).shuffle(order)
    parts = workers * micro_batches
    for start in range(0, len(order), batch_size):
        step = sorted(order[start : start + batch_size], key=lambda i: (lengths[i], i))
        cuts = [round(part * len(step) / parts) for part in range(parts + 1)]
        shares = [step[low:high] for low, high in itertools.pairwise(cuts)]
        yield step, shares[rank::workers]


def collate(rows: Sequence[TokenRow], tokenizer: PreTrainedTokenizerBase) -> Batch:
    """Pad a micro-batch on the right. Classification rows are their prompts alone."""
    flat = [(row.prompt, s) for row in rows for s in (row.sequences or [TokenSequence([])])]
    texts = [prompt + s.ids[:-1] if s.ids else prompt for prompt, s in flat]
    width = max(len(text) for text in texts)
    input_ids = torch.full((len(texts), width), pad_id(tokenizer))
    attention_mask = torch.zeros((len(texts), width), dtype=torch.long)
    for b, text in enumerate(texts):
        input_ids[b, : len(text)] = torch.tensor(text)
        attention_mask[b, : len(text)] = 1
    teachers = max(len(s.weights) for _, s in flat)
    soft = any(s.word_logprobs for _, s in flat)
    row: list[int] = []
    column: list[int] = []
    token: list[int] = []
    word: list[int] = []
    weight: list[list[float]] = [[] for _ in range(teachers)]
    logprob: list[list[float]] = [[] for _ in range(teachers)]
    for b, (prompt, s) in enumerate(flat):
        predictions = max(1, len(s.ids))
        row += [b] * predictions
        column += range(len(prompt) - 1, len(prompt) - 1 + predictions)
        token += s.ids
        word += [w + len(logprob[0]) for w in s.words]
        for i in range(teachers):
            weight[i] += [s.weights[i] if i < len(s.weights) else 0.0] * len(s.ids)
            if soft:
                logprob[i] += s.word_logprobs[i] if i < len(s.word_logprobs) else [0.0] * len(s.word_logprobs[0])
    return Batch(
        input_ids, attention_mask, torch.tensor(row), torch.tensor(column), torch.tensor(token), torch.tensor(weight),
        torch.tensor(word), torch.tensor(logprob) if soft else None,
        torch.tensor([r.probabilities for r in rows]), torch.tensor([r.reference for r in rows]),
    )  # fmt: skip
