"""Rows to tensors: which rows make a step, which of them a worker takes, and how they are packed.

A row's prompt is forwarded once for all its sequences, the teachers' or the pair, and so is what they share. Every rank
computes the same plan from the seed, so no row is dropped, none is seen twice in an epoch, and the loss of a step is divided by
the whole step's total, however its rows fall on workers and micro-batches.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from raw2s.config import Normalize
from raw2s.decoding import word_of_piece
from raw2s.decoding.bridge import Words, join_at_spaces
from raw2s.decoding.packing import Layout, PackedRows, TokenTree, pack_rows, separate_texts, token_tree
from raw2s.decoding.tokens import encode_prompt, encode_target, pad_id
from raw2s.labels.rows import RowKind, TrainingRow


@dataclass(frozen=True)
class TokenSequence:
    """One target sequence in the student's pieces; `words` is the word of each piece, `word_logprobs` (teachers, words).

    A token's weight is its teacher's times `token_share`: 1, or one over the sequence's length where sequences count alike.
    """

    ids: list[int]
    words: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=lambda: [1.0])
    word_logprobs: list[list[float]] = field(default_factory=list)
    teacher: int | None = None
    token_share: float = 1.0

    @property
    def total(self) -> float:
        """The weights of its tokens, summed."""
        return len(self.ids) * self.token_share * sum(self.weights)


@dataclass(frozen=True, kw_only=True)
class TokenRow:
    """A tokenized row; `total` is what it adds to the step's divisor: weighted target tokens or sequences, or 1.

    `reference` is a pair's log P of chosen and rejected before training, once the loop has it.
    """

    id: int
    tree: TokenTree
    total: float
    sequences: list[TokenSequence] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    reference: tuple[float, ...] = ()
    margin: float = 0.0
    """Of a pair, as its teachers score it."""
    by_teacher: Sequence[Sequence[float] | None] = ()
    """Each teacher's own class probabilities, where its weight is learned."""
    strength: float | None = None
    """The sum of a Dirichlet's counts, where the target is one."""

    @property
    def length(self) -> int:
        return len(self.tree.ids)


@dataclass(kw_only=True)
class Batch:
    """One micro-batch: packed rows, N target tokens of all sequences laid end to end, P prompts, I teachers.

    `predictor_N` is the flat index in the rows (row * T + column) that predicts each target token, `sequence_N` the sequence it
    belongs to; in classification N = P, and they are each prompt's last token and the prompt.
    """

    rows: PackedRows
    predictor_N: torch.Tensor
    sequence_N: torch.Tensor
    token_N: torch.Tensor
    weight_IN: torch.Tensor
    word_N: torch.Tensor
    word_logprob_IW: torch.Tensor | None
    probabilities_PK: torch.Tensor
    reference_P2: torch.Tensor
    margin_P: torch.Tensor
    teacher_N: torch.Tensor | None = None
    by_teacher_PIK: torch.Tensor | None = None
    """0 throughout where a teacher has no label."""
    strength_P: torch.Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        moved: dict[str, Any] = {name: None if part is None else part.to(device) for name, part in vars(self).items()}
        return Batch(**moved)


def tokenize_row(
    row: TrainingRow,
    tokenizer: PreTrainedTokenizerBase,
    kind: RowKind,
    *,
    chat: bool = False,
    normalize: Normalize = "tokens",
    words: Words = "runs",
) -> TokenRow:
    """`normalize` and `words` are for targets; classes and pairs count alike by the row."""
    prompt = encode_prompt(tokenizer, row["prompt"], chat=chat)
    if kind == "probabilities":
        tree, own = token_tree(prompt, []), row.get("by_teacher", [])
        probabilities, strength = row["probabilities"], row.get("strength")
        return TokenRow(id=row["id"], tree=tree, total=1.0, probabilities=probabilities, by_teacher=own, strength=strength)
    if kind == "pair":
        pair = [TokenSequence(encode_target(tokenizer, row[side])[0]) for side in ("chosen", "rejected")]
        tree = token_tree(prompt, [s.ids for s in pair])
        return TokenRow(id=row["id"], tree=tree, total=1.0, sequences=pair, margin=row["margin"])
    sequences = []
    for target in row["targets"]:
        ids, offsets = encode_target(tokenizer, target["text"])
        pieces, scores = word_of_piece(target["text"], offsets), target.get("word_logprobs", [])
        if words == "spaces":
            pieces, scores = join_at_spaces(target["text"], pieces, scores)
        share = 1.0 if normalize == "tokens" else 1 / len(ids)
        sequences.append(TokenSequence(ids, pieces, target["weights"], scores, target.get("teacher"), share))
    tree = token_tree(prompt, [s.ids for s in sequences])
    return TokenRow(id=row["id"], tree=tree, total=sum(s.total for s in sequences), sequences=sequences)


def steps_in_epoch(n_rows: int, batch_size: int) -> int:
    return -(-n_rows // batch_size)


def plan_epoch(
    lengths: Sequence[int], *, batch_size: int, micro_batches: int, workers: int, rank: int, seed: int | None
) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Per step: the indices of all its rows, and this rank's share of them as `micro_batches` lists.

    Shuffled by `seed` (None keeps the order); inside a step, rows are dealt out by length, so that ranks and micro-batches have
    like work. In a short last step a list may be empty: every rank makes the same number of forward passes all the same.
    """
    order = list(range(len(lengths)))
    if seed is not None:
        random.Random(seed).shuffle(order)
    parts = workers * micro_batches
    for start in range(0, len(order), batch_size):
        step = sorted(order[start : start + batch_size], key=lambda i: (lengths[i], i))
        yield step, [step[part::parts] for part in range(rank, parts, workers)]


def collate(rows: Sequence[TokenRow], tokenizer: PreTrainedTokenizerBase, hidden_size: int, layout: Layout = "rows") -> Batch:
    """Pack a micro-batch for a model of that hidden size. Classification rows are their prompts alone."""
    trees = [row.tree for row in rows]
    if layout == "one_text_a_row":
        trees = [text for tree in trees for text in separate_texts(tree)]
    packed, starts = pack_rows(trees, padding=pad_id(tokenizer), hidden_size=hidden_size, layout=layout)
    # A classification row is a sequence of no tokens that its prompt's last token predicts.
    sequences = [s for row in rows for s in row.sequences or [TokenSequence([])]]
    predictors = [
        [start + node for node in nodes]
        for tree, start in zip(trees, starts, strict=True)
        for nodes in tree.predictors or [[len(tree.ids) - 1]]
    ]
    flat = list(zip(sequences, predictors, strict=True))
    teachers = max(len(s.weights) for s, _ in flat)
    soft = any(s.word_logprobs for s, _ in flat)
    predictor: list[int] = []
    sequence: list[int] = []
    token: list[int] = []
    word: list[int] = []
    weight: list[list[float]] = [[] for _ in range(teachers)]
    logprob: list[list[float]] = [[] for _ in range(teachers)]
    for index, (s, nodes) in enumerate(flat):
        predictor += nodes
        sequence += [index] * len(nodes)
        token += s.ids
        word += [w + len(logprob[0]) for w in s.words]
        for i in range(teachers):
            weight[i] += [s.weights[i] * s.token_share if i < len(s.weights) else 0.0] * len(s.ids)
            if soft:
                logprob[i] += s.word_logprobs[i] if i < len(s.word_logprobs) else [0.0] * len(s.word_logprobs[0])
    return Batch(
        rows=packed,
        predictor_N=torch.tensor(predictor),
        sequence_N=torch.tensor(sequence),
        token_N=torch.tensor(token),
        weight_IN=torch.tensor(weight),
        word_N=torch.tensor(word),
        word_logprob_IW=torch.tensor(logprob) if soft else None,
        probabilities_PK=torch.tensor([r.probabilities for r in rows]),
        reference_P2=torch.tensor([r.reference for r in rows]),
        margin_P=torch.tensor([r.margin for r in rows]),
        teacher_N=_teachers(flat),
        by_teacher_PIK=_own_probabilities(rows),
        strength_P=None if rows[0].strength is None else torch.tensor([r.strength for r in rows]),
    )


def _teachers(flat: Sequence[tuple[TokenSequence, Sequence[int]]]) -> torch.Tensor | None:
    """The teacher of every target token, where each sequence is one teacher's."""
    teachers = [s.teacher for s, _ in flat for _ in s.ids if s.teacher is not None]
    return torch.tensor(teachers) if teachers else None


def _own_probabilities(rows: Sequence[TokenRow]) -> torch.Tensor | None:
    """(P, I, K), 0 where a teacher has no label; None where the rows hold the mixture alone."""
    if not rows[0].by_teacher:
        return None
    return torch.tensor([[own or [0.0] * len(row.probabilities) for own in row.by_teacher] for row in rows])
