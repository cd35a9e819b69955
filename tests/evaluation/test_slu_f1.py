import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raw2s.evaluation import f1_of_counts, slu_f1, slu_f1_counts

CASES = json.loads((Path(__file__).parents[1] / "data" / "slu_f1" / "cases.json").read_text(encoding="utf-8"))["cases"]
SCORED = [(name, average) for name, case in CASES.items() for average in ("micro", "macro") if average in case]

fillers = st.text("ab ", min_size=1, max_size=8).filter(str.strip)
entities = st.lists(st.tuples(st.sampled_from(["date", "time"]), fillers), max_size=4)
corpora = st.lists(st.tuples(entities, entities), min_size=1, max_size=6)


@pytest.mark.parametrize(("name", "average"), SCORED)
def test_equals_the_official_scorer(name, average):
    case = CASES[name]
    ours = slu_f1(case["gold"], case["predicted"], average=average)
    assert tuple(ours) == pytest.approx(case[average][:3], abs=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_counts_equal_the_official_scorers(name):
    case = CASES[name]
    counts_U3 = slu_f1_counts(case["gold"], case["predicted"])
    assert counts_U3.shape == (len(case["gold"]), 3)
    np.testing.assert_allclose(counts_U3.sum(axis=0), case["micro"][3:], atol=1e-9)


@given(corpora)
def test_micro_is_the_f1_of_the_summed_counts(corpus):
    gold, predicted = zip(*corpus, strict=True)
    assert slu_f1(gold, predicted).f1 == f1_of_counts(slu_f1_counts(gold, predicted).sum(axis=0))


@given(corpora, st.randoms(use_true_random=False))
def test_order_of_utterances_does_not_matter(corpus, rng):
    shuffled = list(corpus)
    rng.shuffle(shuffled)
    assert slu_f1(*zip(*shuffled, strict=True)) == pytest.approx(slu_f1(*zip(*corpus, strict=True)), abs=1e-12)


@given(st.lists(entities, min_size=1).filter(any))
def test_gold_scores_one_against_itself(gold):
    for average in ("micro", "macro"):
        assert slu_f1(gold, gold, average=average) == (1, 1, 1)


@given(corpora)
def test_every_gold_entity_is_found_or_missed_once_per_distance(corpus):
    gold, predicted = zip(*corpus, strict=True)
    tp, fp, fn = slu_f1_counts(gold, predicted).T
    sizes = np.array([[len(g), len(p)] for g, p in corpus])
    assert np.all(tp <= 2 * sizes.min(axis=1))
    # A match charges the same distance to FP and FN, so their difference counts the unmatched entities alone.
    np.testing.assert_allclose(fp - fn, 2 * (sizes[:, 1] - sizes[:, 0]), atol=1e-9)


def test_only_runs_of_white_space_separate_like_one_space():
    def word_part(gold, predicted):  # of the charge: what is left without the character distance
        fp = slu_f1_counts([[("name", gold)]], [[("name", predicted)]])[0, 1]
        edits = sum(a != b for a, b in zip(gold, predicted, strict=False)) + abs(len(gold) - len(predicted))
        return fp - edits / max(len(gold), len(predicted))

    assert word_part("mary ann", "mary ann  ") == pytest.approx(0)
    assert word_part("mary ann", "mary\tann") == pytest.approx(1)  # one unknown word for two


def test_f1_of_counts_over_leading_axes():
    counts = np.array([[[1, 0, 0], [0, 0, 0]], [[0, 2, 0], [1, 1, 3]]])
    np.testing.assert_allclose(f1_of_counts(counts), [[1, 0], [0, 2 / 6]])


def test_corpora_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="2 gold utterances but 1 predicted"):
        slu_f1([[], []], [[]])


@pytest.mark.parametrize("filler", ["", "  "])
def test_an_empty_gold_filler_is_refused(filler):
    with pytest.raises(ValueError, match="utterance 1 is empty"):
        slu_f1([[], [("date", filler)]], [[], []])


def test_an_unknown_average_is_refused():
    with pytest.raises(ValueError, match="weighted"):
        slu_f1([[]], [[]], average="weighted")


def test_macro_of_nothing_divides_by_zero_like_the_official_scorer():
    with pytest.raises(ZeroDivisionError, match="no entity"):
        slu_f1([[]], [[]], average="macro")
