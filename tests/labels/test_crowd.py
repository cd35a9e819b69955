"""Crowd-kit behind one function; skipped where the extra is not installed."""

from typing import get_args

import numpy as np
import pytest

pytest.importorskip("crowdkit", reason='pip install "raw2s[crowd]"')

from raw2s.labels.crowd import CrowdMethod, combine_votes

METHODS = get_args(CrowdMethod)


def crowd(accuracies, items=300, classes=3, seed=0):
    random = np.random.default_rng(seed)
    truth = random.integers(classes, size=items)
    votes = []
    for worker, accuracy in accuracies.items():
        wrong = (truth + random.integers(1, classes, size=items)) % classes
        answers = np.where(random.random(items) < accuracy, truth, wrong)
        votes += [(int(i), worker, int(a)) for i, a in enumerate(answers)]
    return votes, truth


def accuracy(combined, truth):
    return np.mean([np.argmax(combined[i]) == truth[i] for i in range(len(truth))])


@pytest.mark.parametrize("method", ["majority", "dawid_skene"])
def test_every_item_gets_probabilities_of_all_classes(method):
    votes = [(7, "a", 0), (7, "b", 0), (3, "a", 2), (9, "b", 2), (9, "c", 0)]
    combined = combine_votes(votes, method, classes=4)  # nobody votes for classes 1 and 3
    assert combined.keys() == {3, 7, 9}
    for own in combined.values():
        assert len(own) == 4
        assert sum(own) == pytest.approx(1)
        assert own[1] == own[3] == 0
    assert int(np.argmax(combined[7])) == 0


def test_a_majority_is_the_shares_of_the_votes():
    votes = [(1, "a", 0), (1, "b", 1), (1, "c", 1), (2, "a", 1), (2, "b", 0)]
    assert combine_votes(votes, "majority", classes=2) == {1: pytest.approx([1 / 3, 2 / 3]), 2: pytest.approx([0.5, 0.5])}


def test_votes_are_weighed_by_the_skill_that_they_show():
    """MACE only here: its restarts take seconds, however few the votes."""
    votes, truth = crowd({"good": 0.95, "fair": 0.7, "guess": 0.34, "guess more": 0.34, "guess again": 0.34})
    majority, skene, mace = (accuracy(combine_votes(votes, method, 3), truth) for method in METHODS)
    assert skene > majority + 0.05
    assert mace > majority + 0.05
