"""Evidential deep learning: the loss of Bayesian WeakS-to-Strong (section 3.3, Eq. 3-4, App. B), for classes and for tokens.

The student's logits z give evidence e ≥ 0 and the Dirichlet Dir(α), α = e + 1, S = Σ α. With the teachers' distribution p,

    NLL = Σ_k p_k (log S - log α_k)
    KL  = Σ_k p_k KL(Dir(α̃⁽ᵏ⁾) ‖ Dir(1)), α̃⁽ᵏ⁾ = α with entry k set to 1            form `expected`, Eq. 4
          KL(Dir(α̃) ‖ Dir(1)),            α̃ = p + (1 - p) ⊙ α                       form `soft`, the authors' code for tokens

and loss = NLL + kl_weight · KL. Both forms agree for a one-hot p. `expected` is linear in p, so N teachers cost what one does
(`raw2s.losses.mix_targets`).
"""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from raw2s.losses.conventions import Reduction, at_least_float32, checked_target, is_class, reduce_loss
from raw2s.losses.dirichlet import dirichlet_kl, expected_dirichlet_kl, sum_of_others

Evidence = Literal["exp", "softplus", "relu"]
EDLForm = Literal["expected", "soft"]


def edl_loss(
    logits: Tensor,
    target: Tensor,
    *,
    kl_weight: float,
    evidence: Evidence = "exp",
    form: EDLForm = "expected",
    logit_clamp: float | None = None,
    kl_clamp: float | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """NLL + kl_weight · KL in nats (Eq. 3-4, App. B); the KL costs nothing when `kl_weight` is 0.

    Arguments and errors as in `edl_terms`; `kl_weight` includes the annealing (`kl_annealing_at`).
    """
    if kl_weight == 0:
        nll = _nll(evidence_of(logits, evidence, logit_clamp), checked_target(target, logits))
        return reduce_loss(nll, reduction)
    nll, kl = edl_terms(logits, target, evidence=evidence, form=form, logit_clamp=logit_clamp, kl_clamp=kl_clamp)
    return reduce_loss(nll + kl_weight * kl, reduction)


def edl_terms(
    logits: Tensor,
    target: Tensor,
    *,
    evidence: Evidence = "exp",
    form: EDLForm = "expected",
    logit_clamp: float | None = None,
    kl_clamp: float | None = None,
) -> tuple[Tensor, Tensor]:
    """(NLL, KL) of every item in nats, before any weight: their ratio is what to watch when choosing the weight.

    logits: (..., K). target: probabilities (..., K), or class indices (...); a constant, never differentiated.
    evidence: e = exp(z), softplus(z) or relu(z). logit_clamp: z is clamped to ± this before exp (exp only).
    kl_clamp: upper bound of an item's KL; beyond it the KL has no gradient (the authors: 2e5 for tokens).
    Returns two (...) tensors, fp64 for fp64 logits and fp32 for anything else; finite for logits of ±80.
    Raises ValueError for an unknown evidence or form and for a target that fits neither shape.
    """
    target = checked_target(target, logits)
    e = evidence_of(logits, evidence, logit_clamp)
    kl = _kl(e, target, form)
    return _nll(e, target), kl if kl_clamp is None else kl.clamp(max=kl_clamp)


def evidence_of(logits: Tensor, evidence: Evidence, logit_clamp: float | None) -> Tensor:
    """e ≥ 0 of logits (..., K), fp32 at least; arguments as in `edl_terms`. Raises ValueError for an unknown evidence."""
    z = at_least_float32(logits)
    match evidence:
        case "exp":
            z = z if logit_clamp is None else z.clamp(-logit_clamp, logit_clamp)
            # A row whose sum would overflow counts as scaled down to the largest that does not.
            largest = math.log(torch.finfo(z.dtype).max) - 1.0
            return (z - (z.detach().logsumexp(-1, keepdim=True) - largest).relu()).exp()
        case "softplus":
            return softplus(z)
        case "relu":
            return z.relu()
    raise ValueError(f"evidence is {evidence!r}; it must be 'exp', 'softplus' or 'relu'")


def softplus(z: Tensor) -> Tensor:
    """log(1 + exp z)."""
    return F.softplus(z, threshold=40.0)  # torch's default of 20 is wrong by 2e-9 there


def _nll(evidence: Tensor, target: Tensor) -> Tensor:
    """Σ_k target_k (log S - log α_k)."""
    nll: Tensor = _NLL.apply(evidence, target)
    return nll


class _NLL(torch.autograd.Function):
    """With S - α_k as a sum: where one class holds nearly all evidence, the differences 1/S - 1/α and log S - log α cancel."""

    @staticmethod
    def forward(ctx: Any, evidence: Tensor, target: Tensor) -> Tensor:
        classes = evidence.shape[-1]
        if not target.is_floating_point():
            target = is_class(target, classes).to(evidence.dtype)
        is_top = is_class(evidence.argmax(-1), classes)
        alpha = 1 + evidence
        other_alphas = sum_of_others(alpha, is_top)
        strength = (alpha + other_alphas).amax(-1, keepdim=True)
        ctx.save_for_backward((sum_of_others(target, is_top) - target * (other_alphas / alpha)) / strength)
        log_ratio = torch.where(is_top, (other_alphas / alpha).log1p(), strength.log() - evidence.log1p())
        return (target * log_ratio).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_nll: Tensor) -> tuple[Tensor, None]:
        grad: Tensor = ctx.saved_tensors[0]
        return grad * grad_nll.unsqueeze(-1), None


def _kl(evidence: Tensor, target: Tensor, form: EDLForm) -> Tensor:
    if form not in ("expected", "soft"):
        raise ValueError(f"form is {form!r}; it must be 'expected' or 'soft'")
    if not target.is_floating_point():
        return dirichlet_kl(evidence.masked_fill(is_class(target, evidence.shape[-1]), 0.0))
    if form == "soft":
        return dirichlet_kl((1 - target) * evidence)
    return expected_dirichlet_kl(evidence, target)
