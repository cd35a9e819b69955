import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raw2s.losses import (
    balance_threshold,
    cross_entropy,
    edl_loss,
    gamma_at,
    kl_annealing_at,
    mix_with_own_prediction,
)


def test_linear_gamma_rises_to_its_maximum_and_stays() -> None:
    values = [gamma_at(step, 100, 0.5, warmup_fraction=0.4) for step in range(101)]
    assert values[0] == 0
    assert values[20] == pytest.approx(0.25)
    assert values[40:] == [0.5] * 61
    assert gamma_at(50, 100, 0.5) == pytest.approx(0.25)
    assert gamma_at(0, 100, 0.5, warmup_fraction=0.0) == 0.5


def test_authors_gamma_jumps_after_the_threshold() -> None:
    values = [gamma_at(step, 100, 0.2, warmup_fraction=0.25, schedule="authors") for step in range(101)]
    assert values[25] == pytest.approx(0.05)
    assert values[26:] == [0.2] * 75


@settings(deadline=None)
@given(st.integers(1, 500), st.floats(0, 1), st.floats(0, 1), st.sampled_from(["linear", "authors"]))
def test_gamma_never_falls_nor_leaves_its_range(total_steps: int, gamma_max: float, fraction: float, schedule: Any) -> None:
    values = [gamma_at(s, total_steps, gamma_max, warmup_fraction=fraction, schedule=schedule) for s in range(total_steps + 1)]
    assert values == sorted(values)
    assert values[0] >= 0 and values[-1] == pytest.approx(gamma_max)


def test_kl_annealing() -> None:
    assert [kl_annealing_at(step, 10, 0.5) for step in (0, 1, 5, 10)] == pytest.approx([0.0, 0.2, 1.0, 1.0])
    assert kl_annealing_at(0, 10, 0.0) == 1.0


def test_impossible_schedules_are_refused() -> None:
    with pytest.raises(ValueError, match="total_steps"):
        gamma_at(0, 0, 0.2)
    with pytest.raises(ValueError, match=r"1\.5"):
        kl_annealing_at(0, 10, 1.5)
    with pytest.raises(ValueError, match="cosine"):
        gamma_at(0, 10, 0.2, schedule="cosine")  # type: ignore[arg-type]


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
def test_mixing_targets_is_mixing_losses(gamma: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randn(5, 4, generator=generator, dtype=torch.float64).softmax(-1)
    mixed = mix_with_own_prediction(target, logits, gamma)
    assert not mixed.requires_grad
    torch.testing.assert_close(mixed.sum(-1), torch.ones(5, dtype=torch.float64))
    own = logits.detach().argmax(-1)
    for loss in (cross_entropy, lambda z, y: edl_loss(z, y, kl_weight=0.1)):
        expected = (1 - gamma) * loss(logits, target) + gamma * loss(logits, own)
        torch.testing.assert_close(loss(logits, mixed), expected)
        grads = [torch.autograd.grad(value, logits)[0] for value in (loss(logits, mixed), expected)]
        torch.testing.assert_close(*grads)


@pytest.mark.parametrize("positives", [0, 3, 8, 16])
def test_balance_threshold_keeps_the_class_share(positives: int) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(16, 2, generator=generator) + torch.tensor([0.0, 3.0])
    weak = torch.zeros(16, 2)
    weak[:positives, 1], weak[positives:, 0] = 1.0, 1.0
    own = balance_threshold(logits, weak)
    assert own.sum(-1).eq(1).all()
    # The quantile itself is a sample at the two ends and lies between two samples elsewhere; it counts as class 0.
    assert own[:, 1].sum() == min(positives, 15)
    prob_0 = logits.softmax(-1)[:, 0]
    assert prob_0[own[:, 0].bool()].min() >= prob_0[own[:, 1].bool()].max() if positives else own[:, 0].all()


@settings(deadline=None)
@given(st.integers(1, 32), st.integers(0, 10_000))
def test_balance_threshold_is_openais_rule(batch: int, seed: int) -> None:
    """Their code in words: sort the batch by p_0, go up by the mean weak p_1 of the way (linear between two), cut there."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, 2, generator=generator, dtype=torch.float64)
    weak = torch.randn(batch, 2, generator=generator, dtype=torch.float64).softmax(-1)
    prob_0 = logits.softmax(-1)[:, 0]
    ordered, at = prob_0.sort().values, weak[:, 1].mean().item() * (batch - 1)
    threshold = ordered[math.floor(at)] + (at % 1) * (ordered[math.ceil(at)] - ordered[math.floor(at)])
    own = balance_threshold(logits, weak)
    away = (prob_0 - threshold).abs() > 1e-12  # which side of it a sample at the threshold falls is rounding
    assert (own[:, 0].bool() == (prob_0 >= threshold))[away].all()


def test_a_balanced_own_prediction_is_mixed_like_any_other() -> None:
    logits = torch.tensor([[4.0, 0.0], [3.0, 0.0], [2.0, 0.0], [1.0, 0.0]], requires_grad=True)
    weak = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.2, 0.8]])
    own = balance_threshold(logits, weak)
    assert own[:, 1].tolist() == [0.0, 0.0, 1.0, 1.0] and logits.argmax(-1).tolist() == [0] * 4 and not own.requires_grad
    mixed = 0.7 * weak + 0.3 * own
    torch.testing.assert_close(cross_entropy(logits, mixed), 0.7 * cross_entropy(logits, weak) + 0.3 * cross_entropy(logits, own))


def test_balance_threshold_is_for_two_classes() -> None:
    with pytest.raises(ValueError, match="batch, 2"):
        balance_threshold(torch.zeros(4, 3), torch.zeros(4, 3))
