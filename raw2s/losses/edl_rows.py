"""The EDL loss of a block of rows over a vocabulary, with the gradient in closed form (`raw2s.losses.edl` has the formulas).

The target is (1 - γ) soft_label(token, P) + γ onehot(own prediction): mass at two entries (`raw2s.losses.points`), and on the
others, where P < 1, in proportion to the student's softmax. Suffix _p: the two points, (n, 2), in fp64 as is every figure of a
row, (n, 1); the other entries are fp32, or fp64 for fp64 logits. Evidence, and the 1 of α = e + 1, are held times `one`,
exp(-c), with c = 0 but for exp evidence in rows with logits beyond 60, whose sums would overflow.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from raw2s.losses.dirichlet import in_powers, stirling_excess, stirling_slope, unit_polynomials
from raw2s.losses.edl import EDLForm, Evidence, softplus
from raw2s.losses.points import put_back, take_points

MIN_CLASSES = 16
"""The totals take Stirling's series without recurrence."""


class EDLSettings(NamedTuple):
    """As `linear_edl_loss` takes them."""

    kl_weight: float
    evidence: Evidence
    form: EDLForm
    logit_clamp: float | None
    kl_clamp: float | None
    gamma: float


def edl_rows(
    logits: Tensor, token: Tensor, token_prob: Tensor | None, row_weight: Tensor | None, settings: EDLSettings, *, with_grad: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """NLL + kl_weight · KL, NLL, KL before its weight (0 where the weight is 0), and the largest softmax probability of
    (n, V) logits: four (n,).

    The logits are lost: with `with_grad` they hold row_weight times the loss's gradient.
    """
    dtype, classes = logits.dtype, logits.shape[1]
    points = take_points(logits, token)
    exp = settings.evidence == "exp"
    clamp = torch.inf if settings.logit_clamp is None else settings.logit_clamp
    kl_bound = torch.inf if settings.kl_clamp is None else settings.kl_clamp
    z_p = points.logit
    shift = (z_p.clamp(-clamp, clamp).amax(1, keepdim=True) - 60.0).clamp(min=0.0) * exp
    one = (-shift).exp()
    evidence_p, slope_p = _evidence(z_p, settings.evidence, clamp, shift)
    if exp and clamp == torch.inf:
        evidence = slope = softmax = logits.sub_(shift.to(dtype)).exp_()
        softmax_p = evidence_p
    else:
        softmax, softmax_p = (logits - z_p[:, 1:].to(dtype)).exp_(), (z_p - z_p[:, 1:]).clamp(max=600.0).exp()
        evidence, slope = _evidence(logits, settings.evidence, clamp, shift.to(dtype))
        evidence.scatter_(1, points.position, 0.0)

    others = (_sum(softmax) + softmax_p[:, 1:]).clamp(min=torch.finfo(dtype).tiny)
    max_prob = softmax_p.amax(1, keepdim=True) / (others + softmax_p[:, :1])
    target, target_p = _target(softmax, softmax_p, others, points.is_own, token_prob, settings.gamma)

    rest_sum = _sum(evidence)
    strength = rest_sum + evidence_p.sum(1, keepdim=True) + classes * one
    nll = strength.log() + shift - (target_p * (evidence_p / one).log1p()).sum(1, keepdim=True)
    if target is not None:
        nll -= _dot(target, (evidence / one.to(dtype)).log1p_())
    kl = torch.zeros_like(nll)
    if settings.kl_weight:
        kl, by_evidence, by_evidence_p = _kl(evidence, evidence_p, target, target_p, one, settings.form)
    if with_grad:
        weight = torch.ones_like(nll) if row_weight is None else row_weight.unsqueeze(1).double()
        others_alpha_p = rest_sum + evidence_p.flip(1) + (classes - 1) * one  # S - α, never by the difference
        grad_p = weight * ((1 - target_p) - target_p * others_alpha_p / (evidence_p + one)) / strength
        grad = (weight / strength).to(dtype)
        if settings.kl_weight:
            kl_weight = settings.kl_weight * weight * (kl <= kl_bound)
            grad_p += kl_weight * by_evidence_p
            grad = by_evidence.mul_(kl_weight.to(dtype)).add_(grad)
        if target is not None:
            grad = torch.addcdiv(grad, target.mul_(weight.to(dtype)), evidence + one.to(dtype), value=-1)
        torch.mul(grad, slope, out=logits)
        put_back(logits, points, grad_p * slope_p)
    kl = kl.clamp(max=kl_bound)
    return (nll + settings.kl_weight * kl).squeeze(1), nll.squeeze(1), kl.squeeze(1), max_prob.squeeze(1)


def _evidence(logits: Tensor, evidence: Evidence, clamp: float, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Evidence times exp(-shift), and its derivative by the logit."""
    match evidence:
        case "exp":
            e = (logits.clamp(-clamp, clamp) - shift).exp_()
            return e, e.masked_fill(logits.abs() > clamp, 0.0)
        case "softplus":
            return softplus(logits), logits.sigmoid()
        case "relu":
            return logits.relu(), (logits > 0).to(logits.dtype)


def _target(
    softmax: Tensor, softmax_p: Tensor, others: Tensor, is_own: Tensor, token_prob: Tensor | None, gamma: float
) -> tuple[Tensor | None, Tensor]:
    """(1 - γ) soft_label + γ onehot(own prediction): of the others (None where they have no mass), and of the points."""
    target_p = gamma * is_own
    if token_prob is None:
        target_p[:, 0] += 1 - gamma
        return None, target_p
    prob = token_prob.unsqueeze(1).double()
    share = (1 - gamma) * (1 - prob) / others
    target_p += torch.cat([(1 - gamma) * prob, share * softmax_p[:, 1:]], 1)
    return softmax * share.to(softmax.dtype), target_p


def _kl(
    evidence: Tensor, evidence_p: Tensor, target: Tensor | None, target_p: Tensor, one: Tensor, form: EDLForm
) -> tuple[Tensor, Tensor, Tensor]:
    """The KL (n, 1), and its derivatives by the others' evidence (n, V) and by the points'."""
    dtype, classes = evidence.dtype, evidence.shape[1]
    if form == "soft":
        evidence_p = (1 - target_p) * evidence_p
        if target is not None:
            evidence = torch.addcmul(evidence, target, evidence, value=-1)
    tables = unit_polynomials(dtype, evidence.device)
    excess, u, inverse, centred = _unit(evidence, one.to(dtype), tables[0])
    excess_p, u_p, inverse_p, centred_p = _unit(evidence_p, one, tables[0].double())
    rest = _sum(evidence)
    total = rest + evidence_p.sum(1, keepdim=True)
    kl = _sum(excess)
    slopes: Sequence[Tensor]
    slopes_p: Sequence[Tensor]
    if form == "soft":
        kl += excess_p.sum(1, keepdim=True) - stirling_excess(total, classes, one)
        slopes = slopes_p = stirling_slope(total, classes, one)
    else:
        total_p = rest + evidence_p.flip(1)
        kl += ((1 - target_p) * excess_p - target_p * stirling_excess(total_p, classes, one)).sum(1, keepdim=True)
        # Σ over the *other* entries k of target_k times the slope at the total without k: never a difference of large terms
        weighted_p = [target_p * x for x in stirling_slope(total_p, classes, one)]
        slopes, slopes_p = [x.sum(1, keepdim=True) for x in weighted_p], [x.flip(1) for x in weighted_p]
        if target is not None:
            totals = total.to(dtype) - evidence
            kl -= _dot(target, excess.add_(stirling_excess(totals, classes, one.to(dtype))))
            weighted = [x.mul_(target) for x in stirling_slope(totals, classes, one.to(dtype))]
            sums = [_sum(x) for x in weighted]
            slopes_p = [x + rest for x, rest in zip(slopes_p, sums, strict=True)]
            slopes = [(x + rest).to(dtype) - own for x, rest, own in zip(slopes, sums, weighted, strict=True)]
    grad = _kl_derivative(u, in_powers(tables[1], centred), inverse, one.to(dtype), target, [x.to(dtype) for x in slopes], form)
    grad_p = _kl_derivative(u_p, in_powers(tables[1].double(), centred_p), inverse_p, one, target_p, slopes_p, form)
    return kl, grad, grad_p


def _kl_derivative(
    u: Tensor, q: Tensor, inverse: Tensor, one: Tensor, target: Tensor | None, slopes: Sequence[Tensor], form: EDLForm
) -> Tensor:
    """By the evidence: h_1' - slope, with 1 - u and 1 - slope where the plain difference would cancel; times `one`."""
    slope, slope_less_1 = slopes
    value = q * u
    if target is not None and form == "expected":
        value.addcmul_(value, target, value=-1)
    value = value.sub_(slope).mul_(inverse).addcmul_(u, slope_less_1 / one, value=-1)
    return value if target is None or form == "expected" else value.addcmul_(value, target, value=-1)


def _unit(evidence: Tensor, one: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """h_1(e) - e of every entry, and of e = evidence / one: e / (1 + e), 1 / (evidence + one), and 2u - 1 for the polynomials."""
    inverse = (evidence + one).reciprocal_()
    u = evidence * inverse
    centred = (2 * u).sub_(1)
    return in_powers(table, centred).mul_(u).sub_((evidence / one).log1p_(), alpha=0.5), u, inverse, centred


def _sum(x: Tensor) -> Tensor:
    return x.sum(1, keepdim=True).double()


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return torch.linalg.vecdot(x, y).unsqueeze(1).double()
