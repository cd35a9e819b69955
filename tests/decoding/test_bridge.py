import math
import os
import re
from itertools import pairwise, product
from pathlib import Path
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from raw2s.decoding import spread_word_scores, word_of_piece, word_scores
from raw2s.decoding.bridge import Bridge, join_at_spaces, words
from raw2s.decoding.tokens import encode_target
from raw2s.tasks.slurp import load_slurp
from raw2s.tasks.slurp_slots import slot_target

SHARED = Path(os.environ.get("RAW2S_SHARED", Path(__file__).parents[3] / "shared"))
TOKENIZERS = ["gpt2", "opt", "pythia_neox20b", "llama2", "qwen"]


def offsets_of(text: str, *pieces: str) -> list[tuple[int, int]]:
    """Offsets of pieces that follow each other in the text, and of the end marker."""
    offsets, start = [], 0
    for piece in pieces:
        assert text.startswith(piece, start)
        offsets.append((start, start + len(piece)))
        start += len(piece)
    assert start == len(text)
    return [*offsets, (len(text), len(text))]


@pytest.mark.parametrize(
    "text, offsets, expected",
    [
        ("banana", offsets_of("banana", "ba", "na", "na"), [0, 0, 0, 1]),
        ("111", offsets_of("111", "1", "1", "1"), [0, 0, 0, 1]),
        ("na banana", offsets_of("na banana", "na", " ba", "na", "na"), [0, 1, 1, 1, 2]),
        ("{}", offsets_of("{}", "{", "}"), [0, 0, 1]),
        ("", [(0, 0)], [0]),
        ("  ", offsets_of("  ", "  "), [0, 0]),
        ("a b", offsets_of("a b", "a", " ", "b"), [0, 1, 1, 2]),
        (" a b", offsets_of(" a b", " ", "a", " b"), [0, 0, 1, 2]),
        ("a b \n", offsets_of("a b \n", "a", " b", " ", "\n"), [0, 1, 1, 1, 2]),
        ("a b c", offsets_of("a b c", "a b", " c"), [0, 2, 3]),
        ("ab cd", offsets_of("ab cd", "a", "b c", "d"), [0, 0, 1, 2]),
        ("a  b", [(0, 1), (3, 3), (3, 4), (4, 4)], [0, 1, 1, 2]),
        ("\u00e9 \U0001f600", [(0, 1), (0, 1), (1, 3), (2, 3), (2, 3), (3, 3)], [0, 0, 1, 1, 1, 2]),
        ("hi there", [(-1, 2), (2, 8), (8, 8)], [0, 1, 2]),
        ("a b ", [(-1, 4), (4, 4)], [0, 2]),
        ("hi there", [(-1, 0), (0, 2), (3, 8), (8, 8)], [0, 0, 1, 2]),
    ],
)
def test_word_of_piece(text: str, offsets: list[tuple[int, int]], expected: list[int]) -> None:
    assert word_of_piece(text, offsets) == expected


def test_words_are_runs_of_letters_or_of_punctuation() -> None:
    text = ' {"time_zone":\t"3 pm"}\n'
    assert [text[start:end] for start, end in words(text)] == ['{"', "time_zone", '":', '"', "3", "pm", '"}']


def test_word_scores_sum_the_pieces() -> None:
    text = "banana 111"
    offsets = offsets_of(text, "ba", "na", "na", " 1", "1", "1")
    logprobs = torch.tensor([-0.1, -0.2, -0.3, -1.0, -2.0, -3.0, -0.5], dtype=torch.float64)
    assert word_scores(text, offsets, logprobs) == pytest.approx([-0.6, -6.0, -0.5])
    assert word_scores("a b c", offsets_of("a b c", "a b", " c"), [-1.0, -2.0, -0.5]) == [-1.0, 0.0, -2.0, -0.5]
    with pytest.raises(ValueError, match="zip"):
        word_scores(text, offsets, logprobs[:-1])


def test_bridge_formulas_on_one_word() -> None:
    confidence = torch.tensor([0.9, 0.5], dtype=torch.float64)
    word_logprob, pieces = torch.tensor([-2.0, -0.5], dtype=torch.float64), torch.tensor([0, 0])
    low, high = math.exp(0.5) / (math.exp(0.5) + math.exp(0.9)), math.exp(0.9) / (math.exp(0.5) + math.exp(0.9))
    spread = {bridge: spread_word_scores(word_logprob, pieces, confidence, bridge=bridge).tolist() for bridge in get_args(Bridge)}
    assert spread["log"] == pytest.approx([-2.0 * low, -2.0 * high])
    assert spread["eq8"] == pytest.approx([-2.0 + math.log(high), -2.0 + math.log(low)])
    assert spread["equal"] == pytest.approx([-1.0, -1.0])


@st.composite
def batch_of_words(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two padded rows in which every word has one to four pieces."""
    counts = [draw(st.lists(st.integers(1, 4), min_size=1, max_size=5)) for _ in range(2)]
    n_words, n_pieces = max(map(len, counts)), max(map(sum, counts))
    logprob = torch.zeros(2, n_words, dtype=torch.float64)
    word = torch.full((2, n_pieces), -1)
    for row, row_counts in enumerate(counts):
        logprob[row, : len(row_counts)] = -torch.tensor([draw(st.floats(0, 50)) for _ in row_counts], dtype=torch.float64)
        word[row, : sum(row_counts)] = torch.arange(len(row_counts)).repeat_interleave(torch.tensor(row_counts))
    confidence = torch.tensor([[draw(st.floats(0, 1)) for _ in range(n_pieces)] for _ in range(2)], dtype=torch.float64)
    return logprob, word, confidence.masked_fill(word < 0, torch.nan)


@settings(deadline=None, max_examples=50)
@given(batch_of_words())
def test_the_bridge_keeps_the_probability_of_every_word(batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    logprob, word, confidence = batch
    is_piece, index = word >= 0, word.clamp(min=0)
    has_piece = torch.zeros_like(logprob).scatter_add(-1, index, is_piece.double()) > 0
    for bridge in ("log", "equal"):
        spread = spread_word_scores(logprob, word, confidence, bridge=bridge)
        torch.testing.assert_close(torch.zeros_like(logprob).scatter_add(-1, index, spread), logprob)
        assert (spread <= 0).all() and (spread[~is_piece] == 0).all()
    total = torch.zeros_like(logprob).scatter_add(
        -1, index, spread_word_scores(logprob, word, confidence, bridge="eq8").exp().masked_fill(~is_piece, 0.0)
    )
    torch.testing.assert_close(total[has_piece], logprob.exp()[has_piece])
    one_by_one = [spread_word_scores(logprob[row], word[row], confidence[row]) for row in range(2)]
    torch.testing.assert_close(spread_word_scores(logprob, word, confidence), torch.stack(one_by_one))


def test_the_less_confident_piece_gets_the_smaller_probability() -> None:
    confidence = torch.tensor([0.2, 0.9, 0.5])
    for bridge in ("log", "eq8"):
        spread = spread_word_scores(torch.tensor([-3.0]), torch.tensor([0, 0, 0]), confidence, bridge=bridge)
        assert spread.argsort().tolist() == confidence.argsort().tolist()


def test_words_covered_by_a_neighbours_piece_keep_their_probability() -> None:
    text = "x a b c"
    pieces = torch.tensor(word_of_piece(text, offsets_of(text, "x", " a b", " c")))
    assert pieces.tolist() == [0, 1, 3, 4]
    spread = spread_word_scores(torch.tensor([-1.0, -2.0, -4.0, -8.0, -16.0]), pieces, torch.full((4,), 0.5))
    torch.testing.assert_close(spread, torch.tensor([-1.0, -6.0, -8.0, -16.0]))
    uncovered_start = spread_word_scores(torch.tensor([-1.0, -2.0]), torch.tensor([1]), torch.tensor([0.5]))
    torch.testing.assert_close(uncovered_start, torch.tensor([-3.0]))


def test_a_target_cut_short_keeps_its_own_words_only() -> None:
    spread = spread_word_scores(torch.tensor([-1.0, -2.0, -4.0]), torch.tensor([0, 0]), torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(spread, torch.tensor([-0.5, -0.5]))


def test_impossible_words_stay_impossible_and_padding_is_certain() -> None:
    spread = spread_word_scores(torch.tensor([-torch.inf]), torch.tensor([0, 0, -1]), torch.tensor([0.5, 0.1, 0.0]))
    assert spread.tolist() == [-torch.inf, -torch.inf, 0.0]
    assert spread_word_scores(torch.zeros(2), torch.tensor([-1, -1]), torch.ones(2)).tolist() == [0.0, 0.0]


def test_half_precision_is_computed_in_float32() -> None:
    spread = spread_word_scores(torch.tensor([-2.0]).bfloat16(), torch.tensor([0, 0, 0]), torch.full((3,), 0.5).bfloat16())
    torch.testing.assert_close(spread, torch.full((3,), -2.0 / 3))


def test_an_unknown_bridge_is_refused() -> None:
    with pytest.raises(ValueError, match="even"):
        spread_word_scores(torch.zeros(1), torch.tensor([0]), torch.ones(1), bridge="even")  # type: ignore[arg-type]


def byte_level() -> PreTrainedTokenizerFast:
    """As GPT-2's and OPT's: a character of several bytes is several pieces; adds a BOS; merges across no space."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + 12, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(['{"date": "banana na 111"}', "banana na ba 11"], trainer)
    with_bos = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), with_bos])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def sentencepiece() -> PreTrainedTokenizerFast:
    """As Llama's: prepends a space that is not in the text, writes unknown characters as bytes, adds a BOS; pieces may straddle."""
    letters = sorted(set('\u2581{}":,ban1dte'))
    merges = [("n", "a"), ("b", "a"), ("\u2581", "ba"), ("1", "1"), ("{", '"'), ("a", "\u2581"), ("na", "\u2581"), ('"', "}")]
    pieces = ["<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *letters, *map("".join, merges)]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="module")
def small_tokenizers() -> list[PreTrainedTokenizerFast]:
    return [byte_level(), sentencepiece()]


TEXTS = st.one_of(
    st.sampled_from(
        ["{}", "", "banana", "111", '{"date": "banana 111"}', "na banana na", "\u00e9 \U0001f600\u65e5", "a  b ", " "]
    ),
    st.text(alphabet='ban1 {}":,\u00e9\u65e5\U0001f600', max_size=24),
)


@settings(deadline=None, max_examples=100)
@given(text=TEXTS, seed=st.integers(0, 1000))
def test_every_word_is_covered_once_and_keeps_its_probability(
    text: str, seed: int, small_tokenizers: list[PreTrainedTokenizerFast]
) -> None:
    """From either of two kinds of pieces to the other, for texts of repeated substrings and characters of many bytes."""
    generator = torch.Generator().manual_seed(seed)
    spans = words(text)
    for teacher, student in product(small_tokenizers, small_tokenizers):
        ids, offsets = encode_target(teacher, text)
        assert ids[:1] != [teacher.bos_token_id] and ids[-1] == teacher.eos_token_id and len(ids) == len(offsets)
        scores = word_scores(text, offsets, -3 * torch.rand(len(ids), generator=generator, dtype=torch.float64))
        _, student_offsets = encode_target(student, text)
        pieces = word_of_piece(text, student_offsets)
        assert pieces == sorted(pieces) and pieces[-1] == len(spans)
        covered = {i for start, end in student_offsets for i in range(start, end)}
        assert {i for span in spans for i in range(*span)} <= covered
        confidence = torch.rand(len(pieces), generator=generator, dtype=torch.float64)
        spread = spread_word_scores(torch.tensor(scores, dtype=torch.float64), torch.tensor(pieces), confidence)
        assert spread.exp().prod().item() == pytest.approx(math.exp(sum(scores)), rel=1e-6)
        with_pieces = sorted(set(pieces))
        for word, following in pairwise([*with_pieces, len(scores)]):
            own = spread[torch.tensor(pieces) == word].sum().item()
            first = 0 if word == with_pieces[0] else word
            assert own == pytest.approx(sum(scores[first:following])), "and that of the words its pieces cover"


def slurp_targets(count: int) -> list[str]:
    """SLURP's slots as the task writes them, half of them in the paper's notation, and some awkward texts."""
    targets = [slot_target(row, ("short", "paper")[i % 2]) for i, row in enumerate(load_slurp("devel")[:count])]
    return [*targets, '{"person": "jos\u00e9 \U0001f600"}', '{"date": "111 banana  \u65e5\u672c \u8a9e"}', "{} "]


@pytest.mark.skipif(not (SHARED / "data" / "tokenizers").is_dir(), reason="real tokenizers are not at hand")
def test_real_tokenizers_keep_every_words_probability() -> None:
    """Every ordered pair of the paper's tokenizers: each word covered once, the student's product the teacher's P(W)."""
    tokenizers = {
        name: PreTrainedTokenizerFast(tokenizer_file=str(SHARED / "data" / "tokenizers" / name / "tokenizer.json"))
        for name in TOKENIZERS
    }
    generator = torch.Generator().manual_seed(0)
    for text in slurp_targets(500):
        spans = words(text)
        scores, pieces = {}, {}
        for name, tokenizer in tokenizers.items():
            encoding = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
            spelled = zip(encoding["offset_mapping"], encoding["special_tokens_mask"], strict=True)
            offsets = [*(span for span, special in spelled if not special), (len(text), len(text))]
            indices = word_of_piece(text, offsets)
            assert indices == sorted(indices) and indices[-1] == len(spans)
            for (start, end), index in zip(offsets[:-1], indices, strict=False):
                if text[start:end].strip():
                    assert start < spans[index][1] and spans[index][0] < end, "a piece lies in its word"
            covered = {i for start, end in offsets for i in range(start, end)}
            assert {i for span in spans for i in range(*span)} <= covered, "no word is left out"
            logprobs = -3 * torch.rand(len(offsets), generator=generator, dtype=torch.float64)
            scores[name] = torch.tensor(word_scores(text, offsets, logprobs), dtype=torch.float64)
            pieces[name] = torch.tensor(indices)
        for teacher, student in product(TOKENIZERS, TOKENIZERS):
            confidence = torch.rand(len(pieces[student]), generator=generator, dtype=torch.float64)
            spread = spread_word_scores(scores[teacher], pieces[student], confidence)
            kept = torch.zeros_like(scores[teacher]).scatter_add(-1, pieces[student], spread).exp()
            torch.testing.assert_close(kept, scores[teacher].exp(), rtol=1e-6, atol=0.0)


@given(st.text('ab1_é"{:}, \n', max_size=30), st.lists(st.integers(0, 30), max_size=12), st.booleans())
def test_scores_between_spaces_follow_from_those_of_runs(text, cuts, marker):
    """However pieces are cut: a piece is the word's that holds its first non-space character, or of the next, or the last."""
    bounds = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    offsets = [*pairwise(bounds), *[(len(text), len(text))] * marker]
    logprobs = [-(2.0**k) for k in range(len(offsets))]  # sums of powers of two tell their terms
    spans = [match.span() for match in re.finditer(r"\S+", text)]
    expected_words, expected = [], [0.0] * (len(spans) + 1)
    for (start, end), logprob in zip(offsets, logprobs, strict=True):
        first = start + len(text[start:end]) - len(text[start:end].lstrip())
        after = [word for word, (_, stop) in enumerate(spans) if stop > first]
        word = len(spans) if start == len(text) else (after[0] if after else max(len(spans) - 1, 0))
        expected_words.append(word)
        expected[word] += logprob
    got, scores = join_at_spaces(text, word_of_piece(text, offsets), [word_scores(text, offsets, logprobs)] * 2)
    assert got == expected_words
    assert scores == [expected, expected]
