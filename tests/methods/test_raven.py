"""RAVEN's weights: a step on the simplex, rows under a step's weights, and which teacher they find."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raw2s.labels.targets import Labeled
from raw2s.methods import METHODS
from raw2s.methods.learned import LEAST_WEIGHT, LearnedWeights, step_on_simplex
from raw2s.methods.raven import RavenSection
from raw2s.training.batching import TokenRow, TokenSequence
from raw2s.training.teacher_weights import LOSS, TOTAL, WEIGHT, learn, teachers_agree, weigh_rows

weights_of = st.lists(st.floats(0.01, 1), min_size=2, max_size=4).map(lambda w: [x / sum(w) for x in w])
LEARNED = LearnedWeights(teachers=("a", "b"), start=(0.5, 0.5), rate=0.5, agreement_fraction=0.25)


@given(weights_of, st.integers(0, 1000), st.floats(0, 5))
def test_a_step_stays_on_the_simplex_and_goes_downhill(weights, seed, rate):
    losses = torch.rand(len(weights), generator=torch.Generator().manual_seed(seed)).mul(10).tolist()
    moved = step_on_simplex(weights, losses, rate)
    assert sum(moved) == pytest.approx(1) and min(moved) >= LEAST_WEIGHT / 2
    before, after = (sum(w * loss for w, loss in zip(own, losses, strict=True)) for own in (weights, moved))
    assert after <= before + 1e-4


@given(weights_of, st.integers(0, 1000))
def test_it_is_the_exponentiated_gradient(weights, seed):
    """By autograd on the loss that is minimized, sum_i w_i L_i."""
    losses = torch.rand(len(weights), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    w = torch.tensor(weights, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad((w * losses).sum(), w)
    expected = w.detach() * (-0.3 * slope).exp()
    assert step_on_simplex(weights, losses.tolist(), 0.3) == pytest.approx((expected / expected.sum()).tolist())


@given(weights_of, st.floats(-1000, 1000))
def test_equal_teachers_stay_as_they_are(weights, loss):
    assert step_on_simplex(weights, [loss] * len(weights), 0.5) == pytest.approx(weights)


def test_a_teacher_without_a_loss_counts_as_the_mean_and_one_without_weight_stays_so():
    assert step_on_simplex([0.2, 0.3, 0.5], [1.0, None, 1.0], 0.5) == pytest.approx([0.2, 0.3, 0.5])
    low, unknown, high = step_on_simplex([0.25, 0.5, 0.25], [0.0, None, 2.0], 0.5)
    assert high < unknown / 2 < low
    assert step_on_simplex([0.2, 0.8], [None, None], 0.5) == [0.2, 0.8]
    assert step_on_simplex([0.0, 1.0], [0.0, 9.0], 0.5) == [0.0, 1.0]


def text_row(answers: dict[int, list[int]]) -> TokenRow:
    sequences = [TokenSequence(ids, [], [1.0], [], teacher) for teacher, ids in answers.items()]
    return TokenRow(id=7, tree=None, total=0.0, sequences=sequences)


def class_row(by_teacher) -> TokenRow:
    return TokenRow(id=7, tree=None, total=1.0, probabilities=[0.0] * 2, by_teacher=by_teacher)


def test_a_rows_teachers_share_its_weight():
    rows = [text_row({0: [1, 2], 2: [1, 2, 3]}), text_row({1: [5]}), text_row({0: [4]})]
    weigh_rows(rows, [0, 1], [0.3, 0.6, 0.1])
    assert [s.weights for s in rows[0].sequences] == [pytest.approx([0.75]), pytest.approx([0.25])]
    assert rows[0].total == pytest.approx(0.75 * 2 + 0.25 * 3)
    assert rows[1].sequences[0].weights == [1.0] and rows[1].total == 1
    assert rows[2].total == 0.0, "it was not chosen"
    again = list(rows)
    weigh_rows(again, [0, 1], [0.3, 0.6, 0.1])
    assert again == rows


@given(weights_of, st.integers(0, 1000))
def test_classes_are_mixed_with_the_weights_over_who_has_a_label(weights, seed):
    own = torch.rand(len(weights), 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    own = own / own.sum(-1, keepdim=True)
    rows = [class_row(own.tolist()), class_row([None, *own[1:].tolist()])]
    weigh_rows(rows, [0, 1], weights)
    w = torch.tensor(weights, dtype=torch.float64)
    assert rows[0].probabilities == pytest.approx((w @ own).tolist())
    assert rows[1].probabilities == pytest.approx((w[1:] @ own[1:] / w[1:].sum()).tolist())


def test_rows_that_do_not_name_their_teachers_are_refused():
    row = dataclasses.replace(text_row({0: [1]}), sequences=[TokenSequence([1])])
    with pytest.raises(ValueError, match="row 7: learned weights need each teacher's own label; make the rows with per_teacher"):
        weigh_rows([row], [0], [0.5, 0.5])


def test_teachers_agree_on_a_text_or_on_the_likeliest_class():
    assert teachers_agree(text_row({0: [1, 2], 1: [1, 2]})) and not teachers_agree(text_row({0: [1, 2], 1: [1]}))
    assert teachers_agree(class_row([[0.9, 0.1], None, [0.6, 0.4]])) and not teachers_agree(class_row([[0.9, 0.1], [0.4, 0.6]]))


def test_the_first_steps_rest():
    assert [LEARNED.resting(step, 8) for step in range(4)] == [True, True, False, False]
    sums = {LOSS + "a": 2.0, TOTAL + "a": 4.0, LOSS + "b": 9.0, TOTAL + "b": 6.0, "nll": 3.0}
    resting, point = learn(LEARNED, [0.5, 0.5], dict(sums), resting=True)
    assert resting == [0.5, 0.5]
    moved, point = learn(LEARNED, [0.5, 0.5], sums, resting=False)
    assert sums == {"nll": 3.0}
    first = 1 / (1 + math.exp(-0.5 * (1.5 - 0.5)))
    assert moved == pytest.approx([first, 1 - first])
    assert point == pytest.approx({LOSS + "a": 0.5, LOSS + "b": 1.5, WEIGHT + "a": first, WEIGHT + "b": 1 - first})


def test_the_section_says_how_they_are_learned():
    section = RavenSection(method="raven", loss="ce", weight_rate=0.2, agreement_fraction=0.5)
    labeled = Labeled(prompts={}, table=[], weights=[0.25, 0.75], teachers=["a", "b"])
    expected = LearnedWeights(teachers=("a", "b"), start=(0.25, 0.75), rate=0.2, agreement_fraction=0.5)
    assert METHODS["raven"].learned(section, labeled) == expected


def test_the_teacher_whose_labels_can_be_learned_wins():
    """A linear student, two teachers that follow the input (one a little noisy) and one that guesses; no ground truth."""
    generator = torch.Generator().manual_seed(0)
    x_PH = torch.randn(400, 5, generator=generator)
    truth_P = (x_PH @ torch.randn(5, generator=generator) > 0).long()
    noise_P, guess_P = (torch.rand(400, generator=generator) for _ in range(2))
    votes_IP = [truth_P, torch.where(noise_P < 0.1, 1 - truth_P, truth_P), (guess_P < 0.5).long()]
    label_IPK = torch.nn.functional.one_hot(torch.stack(votes_IP), 2).float()
    student = torch.nn.Linear(5, 2)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.5)
    weights = [1 / 3] * 3
    for _ in range(200):
        log_p_PK = student(x_PH).log_softmax(-1)
        losses_I = -(label_IPK * log_p_PK).sum(-1).mean(-1)
        optimizer.zero_grad()
        (torch.tensor(weights) * losses_I).sum().backward()
        optimizer.step()
        weights = step_on_simplex(weights, losses_I.tolist(), 0.1)
    assert weights[0] > weights[1] > weights[2] and weights[2] < 0.05
