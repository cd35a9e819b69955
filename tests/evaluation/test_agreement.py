"""Agreement, shared errors and votes, against values worked out by hand and scikit-learn's."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, matthews_corrcoef

from raw2s.evaluation.agreement import agreement, best_of_each, cohen_kappa, error_correlation, vote_shares


def test_agreement_and_kappa_by_hand():
    """20 of 50 both yes, 15 both no; yes said by 25 and 30: Cohen's own kind of table."""
    one = ["yes"] * 20 + ["yes"] * 5 + ["no"] * 10 + ["no"] * 15
    other = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert agreement(one, other) == 0.7
    assert cohen_kappa(one, other) == pytest.approx((0.7 - 0.5) / 0.5)
    assert math.isnan(cohen_kappa(["a", "a"], ["a", "a"]))
    assert math.isnan(agreement([], [])) and math.isnan(cohen_kappa([], []))


def test_error_correlation_by_hand():
    wrong = np.array([True, True, False, False])
    assert error_correlation(wrong, wrong) == pytest.approx(1)
    assert error_correlation(wrong, ~wrong) == pytest.approx(-1)
    assert error_correlation(wrong, np.array([True, False, True, False])) == 0
    assert math.isnan(error_correlation(wrong, np.zeros(4, dtype=bool)))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=40))
def test_as_scikit_learn_where_that_is_defined(pairs):
    one, other = map(list, zip(*pairs, strict=True))
    if len({*one, *other}) > 1:
        assert cohen_kappa(one, other) == pytest.approx(cohen_kappa_score(one, other))
    a, b = np.array(one) > 1, np.array(other) > 1
    if len(set(a)) == len(set(b)) == 2:
        assert error_correlation(a, b) == pytest.approx(matthews_corrcoef(a, b))


def test_a_vote_takes_the_commonest_answer_and_shares_ties():
    shares = vote_shares([["x", "p", "x", "u"], ["y", "q", "y", "u"], ["y", "r", "x", "u"], ["z", "s", "y", "u"]])
    np.testing.assert_array_equal(shares.T, [[0, 1, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0], [1, 0, 0, 0]])


@given(
    st.integers(1, 5).flatmap(
        lambda i: st.lists(st.lists(st.sampled_from("abc"), min_size=6, max_size=6), min_size=i, max_size=i)
    )
)
def test_a_vote_is_worth_one_answer_an_item_whatever_the_labelers_order(answers):
    shares = vote_shares(answers)
    np.testing.assert_allclose(shares.sum(axis=0), 1)

    def of_answer(own, shares):
        return [
            {a: sum(s for said, s in zip(o, column, strict=True) if said == a) for a in "abc"}
            for o, column in zip(own, shares, strict=True)
        ]

    forward = of_answer(list(zip(*answers, strict=True)), shares.T)
    backward = of_answer(list(zip(*answers[::-1], strict=True)), vote_shares(answers[::-1]).T)
    assert forward == [pytest.approx(item) for item in backward]


def test_the_best_of_each_item_is_the_first_of_equals():
    assert best_of_each([4, 4, 7, 7, 7, 2], np.array([0.1, 0.3, 0.5, 0.9, 0.9, 0.0])) == [1, 3, 5]
