"""Reverse cross entropy and reverse KL against their formulas by loops, over classes and over tokens."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from raw2s.losses import FusedHead, soft_label
from raw2s.methods import LOSSES
from raw2s.methods.loss import TokenTargets
from raw2s.methods.reverse import ReverseSection, reverse_cross_entropy, reverse_kl

NAMES = ["reverse_ce", "reverse_kl"]
FLOOR = 1e-3


def by_loops(name, logits, label):
    """The sum over rows of plain lists."""
    total = 0.0
    for row, own_label in zip(logits.tolist(), label.tolist(), strict=True):
        z = sum(math.exp(value) for value in row)
        for value, y in zip(row, own_label, strict=True):
            p, log_y = math.exp(value) / z, math.log(max(y, FLOOR))
            total += p * ((math.log(p) if name == "reverse_kl" else 0.0) - log_y)
    return total


def drawn(seed, rows=4, classes=6):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    label = torch.rand(rows, classes, generator=generator, dtype=torch.float64)
    label[0] = torch.eye(classes, dtype=torch.float64)[2]
    return logits.requires_grad_(), label / label.sum(dim=-1, keepdim=True)


@pytest.mark.parametrize("name", NAMES)
def test_over_classes(name):
    logits, label = drawn(1)
    section = ReverseSection(name=name, floor=FLOOR)
    loss, _ = LOSSES[name].over_classes(logits, label, section, {"gamma": 0.0})
    assert loss.item() == pytest.approx(by_loops(name, logits, label))
    own = torch.nn.functional.one_hot(logits.argmax(-1), 6).double()
    mixed, _ = LOSSES[name].over_classes(logits, label, section, {"gamma": 0.3})
    assert mixed.item() == pytest.approx(by_loops(name, logits, 0.7 * label + 0.3 * own))


@pytest.mark.parametrize("name", NAMES)
def test_over_tokens_with_a_soft_label(name):
    """The label moves with the student, and counts as a constant."""
    logits, _ = drawn(2, rows=5, classes=20)
    token, prob = torch.tensor([3, 0, 7, 7, 19]), torch.tensor([0.9, 0.2, 1.0, 0.5, 0.7], dtype=torch.float64)
    weight = torch.tensor([1.0, 0.5, 2.0, 0.0, 0.3], dtype=torch.float64)
    head = nn.Linear(20, 20, bias=False, dtype=torch.float64)
    nn.init.eye_(head.weight)
    section = ReverseSection(name=name, floor=FLOOR)
    targets = TokenTargets(token_N=token, token_prob=prob, row_weight_N=weight)
    loss, _ = LOSSES[name].over_tokens(FusedHead(head), logits, targets, section, {"gamma": 0.0})
    label = soft_label(logits, token, prob)
    apart = [by_loops(name, logits[n : n + 1], label[n : n + 1]) for n in range(5)]
    assert loss.item() == pytest.approx(sum(w * one for w, one in zip(weight.tolist(), apart, strict=True)))
    formula = reverse_kl if name == "reverse_kl" else reverse_cross_entropy
    fixed = (weight * formula(logits, label, floor=FLOOR)).sum()
    torch.testing.assert_close(torch.autograd.grad(loss, logits), torch.autograd.grad(fixed, logits))


@given(st.floats(0.01, 0.99), st.integers(0, 1000))
def test_over_tokens_reverse_kl_is_that_of_the_target_against_the_rest(prob, seed):
    """A soft label shares the rest in the student's own proportions, so that only the target's probability differs."""
    logits, _ = drawn(seed, rows=1, classes=20)
    label = soft_label(logits, torch.tensor([3]), torch.tensor([prob], dtype=torch.float64))
    p = logits.softmax(-1)[0, 3].item()
    expected = p * math.log(p / prob) + (1 - p) * math.log((1 - p) / (1 - prob))
    assert reverse_kl(logits, label, floor=1e-30).item() == pytest.approx(expected, abs=1e-9)


@given(st.integers(0, 10_000))
def test_reverse_kl_is_least_where_student_and_label_agree(seed):
    logits, label = drawn(seed)
    assert (reverse_kl(logits, label, floor=1e-30)[1:] >= 0).all()
    assert reverse_kl(label[1:].log(), label[1:], floor=1e-30).abs().max() < 1e-9


def test_a_hard_label_has_a_finite_loss():
    logits, label = drawn(3)
    for formula in (reverse_kl, reverse_cross_entropy):
        loss = formula(logits.float(), label.float(), floor=ReverseSection(name="reverse_ce").floor)
        assert loss.isfinite().all()
    p = logits[0].softmax(-1)[2].item()
    assert reverse_cross_entropy(logits, label, floor=FLOOR)[0].item() == pytest.approx(-(1 - p) * math.log(FLOOR))
