from itertools import product
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from raw2s.losses import cross_entropy, edl_loss, edl_terms, soft_label
from raw2s.losses.edl import EDLForm, Evidence

FORMS = get_args(EDLForm)
EVIDENCES = get_args(Evidence)


def logits_and_target(rows: int, classes: int, seed: int, spread: float = 3.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randn(rows, classes, generator=generator, dtype=torch.float64).softmax(-1)


@pytest.mark.parametrize("form", FORMS)
def test_oracle(form: EDLForm, oracle: dict[str, list[dict[str, Any]]]) -> None:
    for case in oracle[f"edl_{form}"]:
        logits = torch.tensor(case["logits"], dtype=torch.float64, requires_grad=True)
        target = torch.tensor(case["target"], dtype=torch.float64)
        loss = edl_loss(logits, target, kl_weight=case["lam"], evidence=case["evidence"], form=form)
        loss.backward()
        assert loss.item() == pytest.approx(case["loss"], rel=1e-9)
        assert logits.grad is not None
        grad = torch.tensor(case["grad"], dtype=torch.float64)
        assert (logits.grad - grad).abs().max() < 1e-8 * grad.abs().max()


@pytest.mark.parametrize("evidence, form", product(EVIDENCES, FORMS))
def test_gradcheck(evidence: Evidence, form: EDLForm) -> None:
    logits, target = logits_and_target(3, 5, seed=0)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: edl_loss(z, target, kl_weight=0.3, evidence=evidence, form=form, reduction="none"), logits
    )


@pytest.mark.parametrize("evidence", EVIDENCES)
def test_class_indices_are_one_hot_targets_in_either_form(evidence: Evidence) -> None:
    logits, _ = logits_and_target(4, 6, seed=1)
    index = torch.tensor([0, 5, 2, 2], dtype=torch.int32)
    one_hot = torch.nn.functional.one_hot(index.long(), 6).double()
    nll, kl = edl_terms(logits, index, evidence=evidence)
    for form in FORMS:
        other_nll, other_kl = edl_terms(logits, one_hot, evidence=evidence, form=form)
        torch.testing.assert_close(nll, other_nll)
        torch.testing.assert_close(kl, other_kl)


@pytest.mark.parametrize("form", FORMS)
def test_loss_is_nll_plus_weighted_clamped_kl(form: EDLForm) -> None:
    logits, target = logits_and_target(8, 10, seed=2)
    nll, kl = edl_terms(logits, target, form=form)
    bound = kl.median().item()
    loss = edl_loss(logits, target, kl_weight=0.25, form=form, kl_clamp=bound, reduction="none")
    assert (kl > bound).any() and (kl < bound).any()
    torch.testing.assert_close(loss, nll + 0.25 * kl.clamp(max=bound))
    torch.testing.assert_close(edl_loss(logits, target, kl_weight=0.0), nll.mean())
    torch.testing.assert_close(edl_loss(logits, target, kl_weight=1.0, form=form, reduction="sum"), (nll + kl).sum())


def test_softplus_evidence_is_exact_beyond_torchs_threshold() -> None:
    logits = torch.tensor([20.5, -3.0], dtype=torch.float64)
    alpha = 1 + logits.exp().log1p()
    nll, _ = edl_terms(logits, torch.tensor(1), evidence="softplus")
    assert nll.item() == pytest.approx((alpha.sum() / alpha[1]).log().item(), rel=1e-12)


def test_logit_clamp_bounds_the_evidence() -> None:
    target = torch.tensor([0, 1])
    clamped = edl_terms(torch.tensor([[30.0, 2.0], [-30.0, 2.0]]), target, logit_clamp=10.0)
    at_bound = edl_terms(torch.tensor([[10.0, 2.0], [-10.0, 2.0]]), target)
    torch.testing.assert_close(clamped, at_bound)


@settings(deadline=None)
@given(st.integers(2, 9), st.integers(0, 10_000), st.sampled_from(FORMS), st.sampled_from(EVIDENCES))
def test_classes_may_be_permuted(classes: int, seed: int, form: EDLForm, evidence: Evidence) -> None:
    logits, target = logits_and_target(2, classes, seed)
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
    loss = edl_loss(logits, target, kl_weight=0.7, form=form, evidence=evidence)
    permuted = edl_loss(logits[:, order], target[:, order], kl_weight=0.7, form=form, evidence=evidence)
    torch.testing.assert_close(loss, permuted)


@settings(deadline=None)
@given(st.integers(2, 9), st.integers(0, 10_000))
def test_a_shift_moves_the_nll_between_ignorance_and_cross_entropy(classes: int, seed: int) -> None:
    """The logits' size is how much the student knows: without evidence log K, with all of it the softmax's cross entropy."""
    logits, target = logits_and_target(3, classes, seed)
    uniform = torch.full((3,), classes, dtype=torch.float64).log()
    torch.testing.assert_close(edl_terms(logits - 60, target)[0], uniform)
    torch.testing.assert_close(edl_terms(logits + 60, target)[0], cross_entropy(logits, target, reduction="none"))
    kl = torch.stack([edl_terms(logits + shift, target)[1] for shift in (-60.0, -2.0, 0.0, 2.0, 60.0)])
    assert (kl.diff(dim=0) > 0).all() and kl[0].abs().max() < 1e-9


@pytest.mark.parametrize("evidence, form", product(EVIDENCES, FORMS))
def test_finite_at_extreme_logits_and_targets_in_float32(evidence: Evidence, form: EDLForm) -> None:
    values = (-80.0, 0.0, 80.0)
    corners = torch.tensor(list(product(values, values, values)))
    wide = torch.full((3, 32_000), -80.0)
    wide[1] = 80.0
    wide[2, ::2] = 80.0
    for logits in (corners, wide):
        one_hot = torch.zeros_like(logits)
        one_hot[:, 1] = 1.0
        for target in (one_hot, torch.full_like(logits, 1 / logits.shape[-1])):
            z = logits.clone().requires_grad_()
            loss = edl_loss(z, target, kl_weight=1.0, evidence=evidence, form=form, reduction="none")
            loss.sum().backward()
            assert loss.isfinite().all()
            assert z.grad is not None and z.grad.isfinite().all()


def test_confident_logits_keep_a_bounded_gradient() -> None:
    """The KL of one huge evidence grows like (K - 1) log e: as printed, fp32 would leave rounding errors of size e."""
    logits = torch.tensor([60.0, 0.0, 0.0], requires_grad=True)
    _, kl = edl_terms(logits, torch.tensor(1))
    kl.backward()
    assert logits.grad is not None
    assert logits.grad[0].item() == pytest.approx(2.0, rel=1e-5)


@pytest.mark.parametrize("form, vocabulary", product(FORMS, (32_000, 151_936)))
def test_float32_gradient_at_a_real_vocabulary(form: EDLForm, vocabulary: int) -> None:
    """Within 1e-6 of float64 relative to the largest entry: for the loss over the batch, for the KL in every row.

    The rows: confident and right, confident and wrong, a soft label on a flat distribution, and a token the teachers exclude.
    """
    generator = torch.Generator().manual_seed(3)
    logits = 2 * torch.randn(4, vocabulary, generator=generator) - 1
    token = torch.tensor([5, 6, 7, 8])
    logits[0, 5], logits[1, 9], logits[2, 7] = 20.0, 14.0, 6.0
    target = soft_label(logits, token, torch.tensor([1.0, 0.2, 0.9, 0.0]))
    grads = []
    for dtype in (torch.float32, torch.float64):
        z = logits.to(dtype, copy=True).requires_grad_()
        loss = edl_loss(z, target, kl_weight=1e-4, form=form, reduction="sum")
        _, kl = edl_terms(z, target, form=form)
        grads.append([torch.autograd.grad(value, z)[0].double() for value in (loss, kl.sum())])
    (loss_grad, kl_grad), (exact_loss_grad, exact_kl_grad) = grads
    assert (loss_grad - exact_loss_grad).abs().max() < 1e-6 * exact_loss_grad.abs().max()
    assert ((kl_grad - exact_kl_grad).abs().amax(-1) < 1e-6 * exact_kl_grad.abs().amax(-1)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    logits, target = logits_and_target(3, 50, seed=4)
    z = logits.to(dtype).requires_grad_()
    loss = edl_loss(z, target.to(dtype), kl_weight=1e-2)
    loss.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, edl_loss(z.float(), target.to(dtype).float(), kl_weight=1e-2))
    assert z.grad is not None and z.grad.dtype == dtype and z.grad.isfinite().all()


def test_the_target_is_a_constant() -> None:
    logits, target = logits_and_target(2, 4, seed=5)
    logits.requires_grad_()
    target.requires_grad_()
    edl_loss(logits, target, kl_weight=1.0).backward()
    assert target.grad is None


@pytest.mark.parametrize("change", [{"evidence": "log"}, {"form": "hard"}, {"reduction": "median"}])
def test_unknown_words_are_refused(change: dict[str, Any]) -> None:
    logits, target = logits_and_target(2, 4, seed=6)
    with pytest.raises(ValueError, match=next(iter(change.values()))):
        edl_loss(logits, target, **{"kl_weight": 1.0, **change})


def test_a_target_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        edl_loss(torch.zeros(2, 3), torch.zeros(2), kl_weight=1.0)
