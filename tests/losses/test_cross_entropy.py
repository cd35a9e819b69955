from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from raw2s.losses import cross_entropy, soft_label, soft_label_cross_entropy


def draw(rows: int, classes: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, target pieces and the teachers' probabilities for them."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    token = torch.randint(classes, (rows,), generator=generator)
    return logits, token, torch.rand(rows, generator=generator, dtype=torch.float64)


def test_soft_label_oracle(oracle: dict[str, list[dict[str, Any]]]) -> None:
    for case in oracle["soft_label_ce"]:
        logits = torch.tensor(case["logits"], dtype=torch.float64, requires_grad=True)
        token, prob = torch.tensor(case["token"]), torch.tensor(case["p_word_share"], dtype=torch.float64)
        label = torch.tensor(case["soft_label"], dtype=torch.float64)
        torch.testing.assert_close(soft_label(logits, token, prob), label, rtol=1e-9, atol=1e-15)
        loss = soft_label_cross_entropy(logits, token, prob)
        loss.backward()
        assert loss.item() == pytest.approx(case["loss"], rel=1e-9)
        assert logits.grad is not None
        grad = torch.tensor(case["grad"], dtype=torch.float64)
        assert (logits.grad - grad).abs().max() < 1e-8 * grad.abs().max()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_equals_torch(reduction: Any, label_smoothing: float) -> None:
    logits, token, _ = draw(6, 5, seed=0)
    target = torch.rand(6, 5, dtype=torch.float64).softmax(-1)
    for y in (token, target):
        how = {"reduction": reduction, "label_smoothing": label_smoothing}
        expected = F.cross_entropy(logits, y, **how)
        torch.testing.assert_close(cross_entropy(logits, y, **how), expected)
        shaped = cross_entropy(logits.view(2, 3, 5), y.view(2, 3, *y.shape[1:]), **how)
        torch.testing.assert_close(shaped.flatten(), expected.flatten())


@settings(deadline=None)
@given(st.integers(2, 9), st.integers(0, 10_000), st.floats(-50, 50))
def test_a_shift_of_all_logits_changes_nothing(classes: int, seed: int, shift: float) -> None:
    logits, token, prob = draw(3, classes, seed)
    torch.testing.assert_close(cross_entropy(logits + shift, token), cross_entropy(logits, token))
    torch.testing.assert_close(soft_label(logits + shift, token, prob), soft_label(logits, token, prob))
    shifted = soft_label_cross_entropy(logits + shift, token, prob)
    torch.testing.assert_close(shifted, soft_label_cross_entropy(logits, token, prob))


@settings(deadline=None)
@given(st.integers(2, 9), st.integers(0, 10_000))
def test_classes_may_be_permuted(classes: int, seed: int) -> None:
    logits, token, prob = draw(3, classes, seed)
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
    new_token = order.argsort()[token]
    permuted = soft_label(logits[:, order], new_token, prob)
    torch.testing.assert_close(permuted, soft_label(logits, token, prob)[:, order])
    loss = soft_label_cross_entropy(logits[:, order], new_token, prob)
    torch.testing.assert_close(loss, soft_label_cross_entropy(logits, token, prob))


@settings(deadline=None)
@given(st.integers(2, 9), st.integers(0, 10_000), st.floats(0, 1))
def test_soft_label_is_a_distribution_with_the_teachers_probability(classes: int, seed: int, prob: float) -> None:
    logits, token, _ = draw(3, classes, seed)
    label = soft_label(logits, token, torch.full((3,), prob, dtype=torch.float64))
    assert (label >= 0).all()
    torch.testing.assert_close(label.sum(-1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(label.gather(-1, token[:, None])[:, 0], torch.full((3,), prob, dtype=torch.float64))
    others = label / logits.softmax(-1)
    ratio = others.scatter(-1, token[:, None], torch.nan)
    spread = ratio.nan_to_num(-torch.inf).amax(-1) - ratio.nan_to_num(torch.inf).amin(-1)
    torch.testing.assert_close(spread, torch.zeros_like(spread), atol=1e-6, rtol=0)


def test_equals_cross_entropy_against_the_soft_label() -> None:
    logits, token, prob = draw(7, 11, seed=1)
    z, reference = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = soft_label_cross_entropy(z, token, prob, reduction="none")
    expected = cross_entropy(reference, soft_label(reference, token, prob), reduction="none")
    torch.testing.assert_close(loss, expected)
    weights = torch.arange(7.0, dtype=torch.float64)
    (loss * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(z.grad, reference.grad)


def test_a_certain_teacher_gives_plain_cross_entropy() -> None:
    logits, token, prob = draw(5, 8, seed=2)
    torch.testing.assert_close(soft_label_cross_entropy(logits, token, torch.ones_like(prob)), cross_entropy(logits, token))


@pytest.mark.parametrize("size", [30.0, 80.0, 1e4])
def test_a_certain_student_is_no_division_by_zero(size: float) -> None:
    logits = torch.tensor([[size, 0.0, 1.0], [-size, 0.0, 1.0]], requires_grad=True)
    token, prob = torch.tensor([0, 0]), torch.tensor([0.25, 0.25])
    loss = soft_label_cross_entropy(logits, token, prob, reduction="none")
    loss.sum().backward()
    others = torch.tensor([0.0, 1.0]).softmax(-1)
    torch.testing.assert_close(soft_label(logits, token, prob)[0, 1:], 0.75 * others)
    torch.testing.assert_close(loss[0], 0.75 * (size - (others * torch.tensor([0.0, 1.0])).sum()))
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad[0], torch.cat([torch.tensor([0.75]), -0.75 * others]))
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("vocabulary", [32_000, 151_936])
def test_float32_gradient_at_a_real_vocabulary(vocabulary: int) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(4, vocabulary, generator=generator)
    token, prob = torch.tensor([1, 2, 3, 4]), torch.tensor([0.9, 0.5, 1.0, 0.0])
    logits[0, 1] = 25.0
    grads = []
    for dtype in (torch.float32, torch.float64):
        z = logits.to(dtype, copy=True).requires_grad_()
        soft_label_cross_entropy(z, token, prob.to(dtype), reduction="sum").backward()
        assert z.grad is not None
        grads.append(z.grad.double())
    assert ((grads[0] - grads[1]).abs().amax(-1) / grads[1].abs().amax(-1)).max() < 1e-6


def test_finite_at_extreme_logits_and_probabilities_in_float32() -> None:
    for values in product((-80.0, 0.0, 80.0), repeat=3):
        for prob in (0.0, 0.5, 1.0):
            logits = torch.tensor([values], requires_grad=True)
            loss = soft_label_cross_entropy(logits, torch.tensor([1]), torch.tensor([prob]))
            (grad,) = torch.autograd.grad(loss, logits)
            assert loss.isfinite() and grad.isfinite().all()


def test_half_precision_is_computed_in_float32() -> None:
    logits, token, prob = draw(3, 50, seed=4)
    z = logits.bfloat16().requires_grad_()
    loss = soft_label_cross_entropy(z, token, prob)
    loss.backward()
    torch.testing.assert_close(loss, soft_label_cross_entropy(z.float(), token, prob))
    assert loss.dtype == cross_entropy(z, token).dtype == torch.float32
    assert z.grad is not None and z.grad.dtype == torch.bfloat16 and z.grad.isfinite().all()


def test_gradcheck() -> None:
    """The numerical derivative needs a fixed label; the closed form takes it from the logits and holds it constant."""
    logits, token, prob = draw(3, 5, seed=5)
    label = soft_label(logits, token, prob)
    assert torch.autograd.gradcheck(lambda z: cross_entropy(z, label), logits.requires_grad_())
    (closed,) = torch.autograd.grad(soft_label_cross_entropy(logits, token, prob), logits)
    (numeric,) = torch.autograd.grad(cross_entropy(logits, label), logits)
    torch.testing.assert_close(closed, numeric)
