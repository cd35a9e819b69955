"""The threshold of a wished accuracy: it grants the wish on devel, and none that keeps more does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raw2s.use.threshold import threshold_for

ANSWERS = st.lists(st.tuples(st.sampled_from([0.2, 0.35, 0.5, 0.5001, 0.8, 1.0]), st.booleans()), min_size=1, max_size=30)


def share_right(answers: list[tuple[float, bool]], least: float) -> float:
    kept = [right for probability, right in answers if probability >= least]
    return sum(kept) / len(kept)


@given(answers=ANSWERS, accuracy=st.floats(0.01, 1.0))
def test_what_is_kept_is_as_right_as_wished_and_nothing_more_could_be_kept(answers, accuracy):
    thresholds = sorted({probability for probability, _ in answers})
    granting = [least for least in thresholds if share_right(answers, least) >= accuracy]
    if not granting:
        with pytest.raises(ValueError, match=r"no threshold reaches an accuracy of .* on devel, .*; wish for less"):
            threshold_for(accuracy, *zip(*answers, strict=True))
        return
    found = threshold_for(accuracy, *zip(*answers, strict=True))
    assert found.probability == granting[0]
    assert (found.kept, found.examples) == (sum(p >= granting[0] for p, _ in answers), len(answers))
    assert found.right / found.kept == share_right(answers, found.probability)
    low, high = found.ci95
    assert 0 <= low <= found.right / found.kept <= high <= 1


@given(answers=ANSWERS, accuracy=st.floats(0.01, 1.0), less=st.floats(0.1, 0.9))
def test_a_lesser_wish_keeps_as_much_or_more(answers, accuracy, less):
    columns = tuple(zip(*answers, strict=True))
    try:
        strict = threshold_for(accuracy, *columns)
    except ValueError:
        return
    assert threshold_for(accuracy * less, *columns).kept >= strict.kept


def test_the_best_that_there_is_is_said():
    with pytest.raises(ValueError, match=r"of the 3 surest of 4 answers 2 are right \(0\.667\)"):
        threshold_for(0.9, [0.9, 0.8, 0.7, 0.6], [False, True, True, False])


@pytest.mark.parametrize("accuracy", [0.0, -1.0, 1.01, float("nan")])
def test_no_wish_outside_0_and_1(accuracy):
    with pytest.raises(ValueError, match="wish for one above 0 and up to 1"):
        threshold_for(accuracy, [0.5], [True])
