"""The metrics a task may name, held to the libraries that everyone uses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raw2s.evaluation import slu_f1
from raw2s.evaluation.metrics import ACCURACY, EXACT_MATCH, ROUGE_L, SLU_F1, errors, example_scores, macro_f1

CLASSES = ("a", "b", "c", "d")

answers = st.lists(
    st.tuples(st.sampled_from(CLASSES), st.sampled_from([*CLASSES, "none of them", None])), min_size=1, max_size=12
)
words = st.lists(st.sampled_from(["the", "cats", "cat", "ran", "running", "Home", "."]), max_size=8).map(" ".join)
slots = st.lists(st.tuples(st.sampled_from(["date", "time"]), st.text("ab ", min_size=1).filter(str.strip)).map(list), max_size=3)


def score(metric, pairs):
    gold, predicted = zip(*pairs, strict=True)
    counts = metric.counts(gold, predicted)
    assert len(counts) == len(gold)
    return metric.score(counts.mean(axis=0))


@given(answers)
def test_macro_f1_is_scikit_learns(pairs):
    from sklearn.metrics import f1_score

    gold, predicted = zip(*pairs, strict=True)
    written = [p if p in CLASSES else "other" for p in predicted]
    expected = f1_score(gold, written, labels=CLASSES, average="macro", zero_division=0)
    assert score(macro_f1(CLASSES), pairs) == pytest.approx(expected, abs=1e-12)


@given(answers)
def test_accuracy_and_exact_match_are_scikit_learns_accuracy(pairs):
    from sklearn.metrics import accuracy_score

    gold, predicted = zip(*pairs, strict=True)
    expected = accuracy_score(gold, [str(p) for p in predicted])
    assert score(ACCURACY, pairs) == score(EXACT_MATCH, pairs) == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.tuples(words, words), min_size=1, max_size=4))
def test_rouge_l_is_the_mean_of_rouge_scores_f_measure(pairs):
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    expected = np.mean([scorer.score(g, p)["rougeL"].fmeasure for g, p in pairs])
    assert score(ROUGE_L, pairs) == pytest.approx(expected, abs=1e-12)


def test_rouge_l_by_hand():
    pytest.importorskip("rouge_score")
    assert score(ROUGE_L, [("The cats ran home.", "a cat ran")]) == pytest.approx(2 * 2 / (4 + 3))  # cat, ran: stems in order
    assert score(ROUGE_L, [("", "a"), ("a", "")]) == 0


@given(st.lists(st.tuples(slots, slots), min_size=1, max_size=5))
def test_slu_f1_is_the_micro_average(pairs):
    assert score(SLU_F1, pairs) == pytest.approx(slu_f1(*zip(*pairs, strict=True)).f1, abs=1e-12)


@pytest.mark.parametrize("metric", [ACCURACY, macro_f1(CLASSES)], ids=lambda metric: metric.name)
@given(answers, st.randoms(use_true_random=False))
def test_resamples_are_scored_together_as_one_by_one(metric, pairs, rng):
    gold, predicted = zip(*pairs, strict=True)
    counts = metric.counts(gold, predicted)
    samples = [[rng.randrange(len(pairs)) for _ in pairs] for _ in range(3)]
    together = metric.score(np.stack([counts[sample].mean(axis=0) for sample in samples]))
    assert together.shape == (3,)
    assert together == pytest.approx([float(score(metric, [pairs[i] for i in sample])) for sample in samples])


@pytest.mark.parametrize(
    "metric, gold, said",
    [
        (ACCURACY, ["a", "b"], ["a", "a"]),
        (macro_f1("abc"), ["a", "b"], ["a", "a"]),
        (SLU_F1, [[], [("date", "monday")]], [[], [("date", "friday")]]),  # naming nothing, rightly, is no error
    ],
)
def test_an_error_is_what_the_metric_does_not_count_as_gold(metric, gold, said):
    assert errors(metric, gold, metric.counts(gold, said)).tolist() == [False, True]


def test_rightly_naming_no_slot_wins_an_example_as_any_right_answer_does():
    gold = [[], [], [["date", "monday"]], [["date", "monday"]], [["date", "monday"], ["time", "noon"]]]
    said = [[], [["time", "noon"]], [["date", "monday"]], [], [["date", "monday"]]]
    scores = example_scores(SLU_F1, gold, SLU_F1.counts(gold, said))
    assert scores.tolist() == pytest.approx([1, 0, 1, 0, 2 / 3])
    assert SLU_F1.score(SLU_F1.counts(gold, said))[0] == 0  # what its own formula says of it


@given(answers)
def test_an_examples_score_is_one_where_it_is_gold_and_less_elsewhere(pairs):
    gold, said = zip(*pairs, strict=True)
    for metric in (ACCURACY, macro_f1(CLASSES)):
        scores = example_scores(metric, gold, metric.counts(gold, said))
        assert ((scores == 1) == [g == p for g, p in pairs]).all() and (scores >= 0).all()
