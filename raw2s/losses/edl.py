"""Evidential deep learning: the loss of Bayesian WeakS-to-Strong (section 3.3, Eq. 3-4, App. B), for classes and for tokens.

The student's logits z give evidence e ≥ 0 and the Dirichlet Dir(α), α = e + 1, S = Σ α. With the teachers' distribution p,

    NLL = Σ_k p_k (log S - log α_k)
    KL  = Σ_k p_k KL(Dir(α̃⁽ᵏ⁾) ‖ Dir(1)), α̃⁽ᵏ⁾ = α with entry k set to 1            form `expected`, Eq. 4
          KL(Dir(α̃) ‖ Dir(1)),            α̃ = p + (1 - p) ⊙ α                       form `soft`, the authors' code for tokens

and loss = NLL + kl_weight · KL. Both forms agree for a one-hot p. `expected` is linear in p, so N teachers cost what one does
(`raw2s.losses.mix_targets`).
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from raw2s.losses.conventions import Reduction, at_least_float32, checked_target, is_class, reduce_loss
from raw2s.losses.dirichlet import dirichlet_kl, expected_dirichlet_kl

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
        _, log_alpha = _evidence(logits, evidence, logit_clamp)
        return reduce_loss(_nll(log_alpha, checked_target(target, logits)), reduction)
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
    e, log_alpha = _evidence(logits, evidence, logit_clamp)
    kl = _kl(e, target, form)
    return _nll(log_alpha, target), kl if kl_clamp is None else kl.clamp(max=kl_clamp)


def _evidence(logits: Tensor, evidence: Evidence, logit_clamp: float | None) -> tuple[Tensor, Tensor]:
    """(e, log α)."""
    z = at_least_float32(logits)
    match evidence:
        case "exp":
            z = z if logit_clamp is None else z.clamp(-logit_clamp, logit_clamp)
            saturation = math.log(torch.finfo(z.dtype).max / z.shape[-1])  # the sum over K classes must stay finite
            return z.clamp(max=saturation).exp(), softplus(z)
        case "softplus":
            e = softplus(z)
        case "relu":
            e = z.relu()
        case _:
            raise ValueError(f"evidence is {evidence!r}; it must be 'exp', 'softplus' or 'relu'")
    return e, e.log1p()


def softplus(z: Tensor) -> Tensor:
    """log(1 + exp z)."""
    return F.softplus(z, threshold=40.0)  # torch's default of 20 is wrong by 2e-9 there


def _nll(log_alpha: Tensor, target: Tensor) -> Tensor:
    log_strength = log_alpha.logsumexp(-1)
    if not target.is_floating_point():
        return log_strength - log_alpha.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    return target.sum(-1) * log_strength - (target * log_alpha).sum(-1)


def _kl(evidence: Tensor, target: Tensor, form: EDLForm) -> Tensor:
    if form not in ("expected", "soft"):
        raise ValueError(f"form is {form!r}; it must be 'expected' or 'soft'")
    if not target.is_floating_point():
        return dirichlet_kl(evidence.masked_fill(is_class(target, evidence.shape[-1]), 0.0))
    if form == "soft":
        return dirichlet_kl((1 - target) * evidence)
    return expected_dirichlet_kl(evidence, target)
