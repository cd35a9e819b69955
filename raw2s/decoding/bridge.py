"""The tokenizer bridge (section 4.2, Eq. 7-8, Fig. 2): the teachers' word probabilities on the student's pieces.

Words are the runs of letters, digits and underscores, and the runs of punctuation, of the target text, and after them the
end-of-sequence marker as a word of its own. Punctuation stands apart because a word's doubt is shared by all its pieces: in
`"nine`, doubt about the value would make the quotation mark doubtful too, and the student would unlearn to write JSON.
With `join_at_spaces` words are all that stands between spaces, as in the paper: each is made of whole runs, so its score is the
sum of theirs, and one table of scores serves both.
Pieces map to words by character offsets, never by their strings: "banana" as ba|na|na has three pieces of one word.
"""

import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Bridge = Literal["log", "eq8", "equal"]
Words = Literal["runs", "spaces"]
Offsets = Sequence[tuple[int, int]]
"""Character span of every piece, as `offset_mapping` of a fast tokenizer gives it, with special tokens dropped; for the
end-of-sequence marker the last entry is (len(text), len(text))."""


def words(text: str) -> list[tuple[int, int]]:
    """Character spans of the words: runs of letters, digits and underscores, or of punctuation; the end marker has none."""
    return [match.span() for match in re.finditer(r"\w+|[^\w\s]+", text)]


def word_of_piece(text: str, offsets: Offsets) -> list[int]:
    """The index of the word each piece belongs to; `len(words(text))` is the end marker's.

    A piece belongs to the word that holds its first non-space character, also when it spans two words. A piece without one
    (whitespace, or an empty span) belongs to the word that follows, or to the last word. Spans may reach over the text's edges,
    as with a tokenizer that prepends a space.
    """
    word_ends = [end for _, end in words(text)]
    indices = []
    for start, end in offsets:
        if start == end == len(text):
            indices.append(len(word_ends))
            continue
        span = text[start:end]
        first_character = start + len(span) - len(span.lstrip())
        indices.append(min(bisect_right(word_ends, first_character), max(len(word_ends) - 1, 0)))
    return indices


def word_scores(text: str, offsets: Offsets, logprobs: Sequence[float] | Tensor) -> list[float]:
    """log P(W) of every word, end marker last: the sum of its pieces' log-probabilities in nats (Eq. 7, stage 1 of Fig. 2).

    Length `len(words(text)) + 1`. A word whose characters all lie in a piece of the word before scores 0.0, log 1: its
    probability is in that word's. Raises ValueError when `offsets` and `logprobs` differ in length.
    """
    scores = [0.0] * (len(words(text)) + 1)
    for word, logprob in zip(word_of_piece(text, offsets), logprobs, strict=True):
        scores[word] += float(logprob)
    return scores


def join_at_spaces(
    text: str, word_of_piece: Sequence[int], word_logprobs: Sequence[Sequence[float]]
) -> tuple[list[int], list[list[float]]]:
    """Pieces and scores (teachers, words + 1) of the words of `text`, to those of its white-space-delimited words.

    The end marker stays a word of its own. Raises ValueError for scores of another number of words.
    """
    joined: list[int] = []
    before = 0
    for start, end in words(text):
        joined.append((joined[-1] + (start != before)) if joined else 0)
        before = end
    joined.append(joined[-1] + 1 if joined else 0)
    scores = [[0.0] * (joined[-1] + 1) for _ in word_logprobs]
    for mine, given in zip(scores, word_logprobs, strict=True):
        for word, logprob in zip(joined, given, strict=True):
            mine[word] += logprob
    return [joined[word] for word in word_of_piece], scores


def spread_word_scores(word_logprob: Tensor, word_of_piece: Tensor, confidence: Tensor, *, bridge: Bridge = "log") -> Tensor:
    """log P(s_i) of every student piece from its word's log P(W) (Eq. 7-8, Fig. 2 stage 2): (..., W), 2 × (..., T) -> (..., T).

    word_of_piece: -1 marks padding, which gets 0.0 (log 1). confidence: C_s, the student's maximum probability at the step.
    bridge, with the softmax over the pieces of a word:
      `log`    softmax(-C_s) · log P(W): the product over the word is P(W), the less confident piece has the smaller probability
      `eq8`    log(softmax(C_s) · P(W)): Eq. 8 as printed, whose sum over the word is P(W)
      `equal`  log P(W) / number of pieces
    The log P(W) of a word without a piece of its own joins that of the nearest word before it that has one, whose last piece
    covers it; words after the last piece (a target cut short) and padding of `word_logprob` with 0.0 have no effect.
    Not differentiable. At least fp32. Raises ValueError for another bridge.
    """
    if bridge not in ("log", "eq8", "equal"):
        raise ValueError(f"bridge is {bridge!r}; it must be 'log', 'eq8' or 'equal'")
    with torch.no_grad():
        dtype = torch.promote_types(word_logprob.dtype, torch.float32)
        is_piece = word_of_piece >= 0
        word = word_of_piece.clamp(min=0)
        sign = {"log": -1.0, "eq8": 1.0, "equal": 0.0}[bridge]
        weight = (sign * confidence.to(dtype)).exp().masked_fill(~is_piece, 0.0)  # a confidence is a probability: no overflow
        weight_of_word = torch.zeros_like(word_logprob, dtype=dtype).scatter_add(-1, word, weight)
        share = weight / weight_of_word.gather(-1, word)
        logprob = _join_words_without_pieces(word_logprob.to(dtype), weight_of_word > 0).gather(-1, word)
        spread = share.log() + logprob if bridge == "eq8" else share * logprob
        return spread.masked_fill(~is_piece, 0.0)


def _join_words_without_pieces(word_logprob: Tensor, has_piece: Tensor) -> Tensor:
    """Moves a pieceless word's log-probability to its owner: the nearest word before with a piece, else the first with one."""
    index = torch.arange(has_piece.shape[-1], device=has_piece.device).expand_as(has_piece)
    owner = torch.where(has_piece, index, -1).cummax(-1).values
    owner = torch.where(owner < 0, has_piece.int().argmax(-1, keepdim=True), owner)
    last = torch.where(has_piece, index, -1).amax(-1, keepdim=True)
    return torch.zeros_like(word_logprob).scatter_add(-1, owner, word_logprob.masked_fill(index > last, 0.0))
