import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Dirichlet, kl_divergence

from raw2s.losses.dirichlet import dirichlet_kl, expected_dirichlet_kl


def brute_force_kl(alpha: Tensor) -> Tensor:
    return kl_divergence(Dirichlet(alpha), Dirichlet(torch.ones_like(alpha)))


def brute_force_expected_kl(evidence: Tensor, target: Tensor) -> Tensor:
    classes = evidence.shape[-1]
    keep = 1 - torch.eye(classes, dtype=evidence.dtype)
    return (target * torch.stack([brute_force_kl(1 + evidence * keep[k]) for k in range(classes)], -1)).sum(-1)


def exact_kl_and_logit_grad(evidence: Tensor) -> tuple[float, Tensor]:
    """KL(Dir(1 + e) || Dir(1)) and its gradient by log e, to 60 digits."""
    with mpmath.workdps(60):
        e = [mpmath.mpf(x) for x in evidence.tolist()]
        classes, total = len(e), mpmath.fsum(e)
        strength = classes + total
        kl = mpmath.loggamma(strength) - mpmath.loggamma(classes) - total * mpmath.digamma(strength)
        kl += mpmath.fsum(x * mpmath.digamma(1 + x) - mpmath.loggamma(1 + x) for x in e)
        common = total * mpmath.psi(1, strength)
        grad = [float(x * (x * mpmath.psi(1, 1 + x) - common)) for x in e]
        return float(kl), torch.tensor(grad, dtype=torch.float64)


def relative_to_largest(error: Tensor, reference: Tensor) -> float:
    return float(error.abs().max() / reference.abs().max())


@pytest.mark.parametrize("classes", [1, 2, 3, 7, 40])
def test_equals_torch_distributions(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    evidence = (2 * torch.randn(6, classes, generator=generator, dtype=torch.float64)).exp()
    target = torch.rand(6, classes, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(dirichlet_kl(evidence), brute_force_kl(1 + evidence), rtol=1e-12, atol=1e-12)
    expected = brute_force_expected_kl(evidence, target)
    torch.testing.assert_close(expected_dirichlet_kl(evidence, target), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 3e-6), (torch.float64, 1e-13)])
@pytest.mark.parametrize("classes", [2, 5, 60])
@pytest.mark.parametrize("mean, spread", [(-8.0, 1.0), (0.0, 1.0), (0.0, 5.0), (15.0, 8.0), (60.0, 5.0), (0.0, 40.0)])
def test_exact_over_the_whole_range(classes: int, mean: float, spread: float, dtype: torch.dtype, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits = (mean + spread * torch.randn(classes, generator=generator, dtype=torch.float64)).clamp(-80, 75)
    evidence = logits.to(dtype).exp().requires_grad_()
    kl = dirichlet_kl(evidence)
    kl.backward()
    exact, exact_grad = exact_kl_and_logit_grad(evidence.detach().double())
    assert kl.item() == pytest.approx(exact, rel=tolerance, abs=tolerance * min(1.0, evidence.sum().item()))
    assert evidence.grad is not None
    assert relative_to_largest(evidence.grad.double() * evidence.detach().double() - exact_grad, exact_grad) < tolerance / 3


@pytest.mark.parametrize("mean, spread", [(-8.0, 1.0), (0.0, 3.0), (20.0, 8.0), (0.0, 30.0)])
def test_expected_kl_is_as_accurate_in_float32(mean: float, spread: float) -> None:
    generator = torch.Generator().manual_seed(0)
    evidence = (mean + spread * torch.randn(5, 200, generator=generator)).clamp(max=75).exp()
    target = (4 * torch.randn(5, 200, generator=generator)).softmax(-1)
    target[0] = torch.eye(200)[evidence[0].argmax()]
    grads = []
    for dtype in (torch.float32, torch.float64):
        e = evidence.to(dtype, copy=True).requires_grad_()
        (grad,) = torch.autograd.grad(expected_dirichlet_kl(e, target.to(dtype)).sum(), e)
        grads.append((grad * e).detach().double())
    for grad, exact in zip(*grads, strict=True):
        assert relative_to_largest(grad - exact, exact) < 1e-6


def test_one_hot_expectation_is_the_kl_without_that_entry() -> None:
    evidence = torch.tensor([3e4, 5e20, 0.0, 0.2, 7.0], requires_grad=True)
    for k in range(5):
        one_hot = torch.eye(5)[k]
        (grad,) = torch.autograd.grad(expected_dirichlet_kl(evidence, one_hot), evidence)
        masked = evidence.detach().masked_fill(one_hot.bool(), 0.0).requires_grad_()
        (masked_grad,) = torch.autograd.grad(dirichlet_kl(masked), masked)
        torch.testing.assert_close(expected_dirichlet_kl(evidence, one_hot), dirichlet_kl(masked), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(grad, masked_grad.masked_fill(one_hot.bool(), 0.0), rtol=1e-5, atol=0.0)


def test_gradcheck() -> None:
    evidence = torch.tensor([[0.0, 0.3, 1.0, 4.0], [40.0, 1e-3, 0.999, 3.0]], dtype=torch.float64) + 0.01
    target = torch.tensor([[0.1, 0.2, 0.3, 0.4], [1.0, 0.0, 0.5, 0.25]], dtype=torch.float64)
    evidence.requires_grad_()
    assert torch.autograd.gradcheck(dirichlet_kl, evidence)
    assert torch.autograd.gradcheck(lambda e: expected_dirichlet_kl(e, target), evidence)


@settings(deadline=None)
@given(st.lists(st.floats(-20, 60), min_size=1, max_size=12))
def test_never_negative_and_zero_without_evidence(logits: list[float]) -> None:
    evidence = torch.tensor(logits, dtype=torch.float64).exp()
    assert dirichlet_kl(evidence) > -1e-12
    assert dirichlet_kl(torch.zeros_like(evidence)) == 0
