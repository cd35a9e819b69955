import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raw2s.losses import cdpo_loss, sequence_log_probs


def test_oracle(oracle: dict[str, list[dict[str, Any]]]) -> None:
    for case in oracle["cdpo"]:
        names = ("chosen", "rejected", "ref_chosen", "ref_rejected")
        values = [torch.tensor(case[name], dtype=torch.float64) for name in names]
        loss = cdpo_loss(*values, beta=case["beta"], label_smoothing=case["eps"])
        assert loss.item() == pytest.approx(case["loss"], rel=1e-9)


def test_gradient_is_the_residual_probability() -> None:
    chosen = torch.tensor([-3.0, -7.0], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor([-4.0, -5.0], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([-3.5, -5.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda c, r: cdpo_loss(c, r, reference, reference, beta=0.7, label_smoothing=0.1), (chosen, rejected)
    )
    cdpo_loss(chosen, rejected, reference, reference, beta=0.7, label_smoothing=0.1, reduction="sum").backward()
    expected = 0.7 * ((0.7 * (chosen - rejected)).sigmoid() - 0.9)
    torch.testing.assert_close(chosen.grad, expected.detach())
    torch.testing.assert_close(rejected.grad, -expected.detach())


@given(st.floats(-30, 30), st.floats(-30, 30), st.floats(0.01, 10), st.floats(0, 0.5))
def test_conservative_loss_mixes_both_orders(chosen: float, rejected: float, beta: float, epsilon: float) -> None:
    c, r, zero = (torch.tensor(x, dtype=torch.float64) for x in (chosen, rejected, 0.0))
    forward = cdpo_loss(c, r, zero, zero, beta=beta, label_smoothing=0.0)
    backward = cdpo_loss(r, c, zero, zero, beta=beta, label_smoothing=0.0)
    mixed = cdpo_loss(c, r, zero, zero, beta=beta, label_smoothing=epsilon)
    torch.testing.assert_close(mixed, (1 - epsilon) * forward + epsilon * backward)


def test_a_model_equal_to_its_reference_loses_log_2() -> None:
    x = torch.tensor([-10.0, -20.0])
    assert cdpo_loss(x, x - 3, x, x - 3, beta=10.0, label_smoothing=0.1).item() == pytest.approx(math.log(2))


def test_huge_margins_are_finite() -> None:
    x = torch.tensor([1e4, -1e4], requires_grad=True)
    loss = cdpo_loss(x, -x, torch.zeros(2), torch.zeros(2), beta=10.0, label_smoothing=0.1)
    loss.backward()
    assert loss.isfinite() and x.grad is not None and x.grad.isfinite().all()


def test_label_smoothing_beyond_a_coin_flip_is_refused() -> None:
    with pytest.raises(ValueError, match="label_smoothing"):
        cdpo_loss(*torch.zeros(4), beta=1.0, label_smoothing=0.6)


def test_sequence_log_probs_sum_the_completion_only() -> None:
    probs_BTV = torch.tensor([[[0.5, 0.5], [0.25, 0.75], [0.9, 0.1]], [[0.2, 0.8], [0.6, 0.4], [0.3, 0.7]]])
    tokens_BT = torch.tensor([[0, 1, 0], [1, 0, 1]])
    mask_BT = torch.tensor([[False, True, True], [True, True, False]])
    expected = torch.tensor([0.75 * 0.9, 0.8 * 0.6]).log()
    torch.testing.assert_close(sequence_log_probs(probs_BTV.log() + 5.0, tokens_BT, mask_BT), expected)
