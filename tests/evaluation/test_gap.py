import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raw2s.evaluation import performance_gap_recovered

SCIQ = ([0.717, 0.699, 0.685], 0.898)  # Table 1: GPT2-Large, OPT-1.3B, Pythia-1.4B; Qwen-7B
SLURP = ([0.660, 0.665, 0.680], 0.781)  # Table 3: the same teachers; Llama-2-7B

PUBLISHED = [  # (scores of Tables 1 or 3, student's score, PGR printed beside it)
    pytest.param(SCIQ, 0.818, 0.593, id="table 2, naive"),
    pytest.param(SCIQ, 0.844, 0.726, id="table 2, naive, aux"),
    pytest.param(SCIQ, 0.822, 0.614, id="table 2, bayesian"),
    pytest.param(SCIQ, 0.855, 0.781, id="table 2, bayesian, aux"),
    pytest.param(SLURP, 0.689, 0.181, id="table 4, naive"),
    pytest.param(SLURP, 0.673, 0.036, id="table 4, naive, aux"),
    pytest.param(SLURP, 0.700, 0.276, id="table 4, bayesian"),
    pytest.param(SLURP, 0.697, 0.252, id="table 4, bayesian, aux"),
    pytest.param(SLURP, 0.711, 0.375, id="table 5, naive"),
    pytest.param(SLURP, 0.700, 0.276, id="table 5, naive, aux"),
    pytest.param(SLURP, 0.715, 0.413, id="table 5, bayesian"),
    pytest.param(SLURP, 0.726, 0.509, id="table 5, bayesian, aux"),
    pytest.param(SLURP, 0.728, 0.526, id="table 5, cdpo"),
]

scores = st.floats(0, 1)


@pytest.mark.parametrize(("reference", "student", "printed"), PUBLISHED)
def test_reproduces_the_papers_tables(reference, student, printed):
    weak, strong = reference
    assert performance_gap_recovered(student, weak, strong) == pytest.approx(printed, abs=0.003)


@pytest.mark.parametrize(("teacher", "student", "printed"), [(0, 0.832, 0.635), (1, 0.828, 0.648), (2, 0.800, 0.540)])
def test_reproduces_single_teachers_of_table_2(teacher, student, printed):
    assert performance_gap_recovered(student, SCIQ[0][teacher], SCIQ[1]) == pytest.approx(printed, abs=0.003)


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
