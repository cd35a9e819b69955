import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raw2s.evaluation import performance_gap_recovered

scores = st.floats(0, 1)


@given(scores, scores, scores)
def test_one_teacher_is_a_sequence_of_one(student, weak, strong):
    alone, listed = performance_gap_recovered(student, weak, strong), performance_gap_recovered(student, [weak], strong)
    assert alone == listed or (math.isnan(alone) and math.isnan(listed))


@given(st.lists(st.floats(0, 0.9), min_size=1, max_size=5))
def test_the_ceiling_recovers_the_whole_gap(weak):
    assert performance_gap_recovered(0.95, weak, 0.95) == pytest.approx(1)


@pytest.mark.parametrize("weak", [0.7, 0.8, [0.5, 0.7], [0.9, 0.5]])
def test_undefined_without_a_gap_to_every_teacher(weak):
    assert math.isnan(performance_gap_recovered(0.6, weak, 0.7))


def test_no_teacher_is_refused():
    with pytest.raises(ValueError, match="No teacher"):
        performance_gap_recovered(0.6, [], 0.7)
