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

from raw2s.losses.dirichlet import FRESH, Scratch, in_powers, stirling_terms, unit_polynomials
from raw2s.losses.edl import EDLForm, Evidence, softplus
from raw2s.losses.points import Points, exp_of_shifted, put_back, take_points

MIN_CLASSES = 16
"""The totals take Stirling's series without recurrence."""


class EDLSettings(NamedTuple):
    """As `linear_edl_loss` takes them; infinite clamps for none."""

    kl_weight: float
    evidence: Evidence
    form: EDLForm
    logit_clamp: float
    kl_clamp: float
    gamma: float


class Entries(NamedTuple):
    """A row's two points, or the others; evidence and slope times `one`."""

    evidence: Tensor
    slope: Tensor
    """d evidence / d logit; the same tensor as the evidence for exp."""
    target: Tensor | None
    u: Tensor
    """e / (1 + e)."""
    slope_over_alpha: Tensor
    log_alpha: Tensor


def edl_rows(
    logits: Tensor,
    token: Tensor,
    token_prob: Tensor | None,
    row_weight: Tensor | None,
    scratch: Scratch,
    *,
    settings: EDLSettings,
    with_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss NLL + kl_weight · KL of (n, V) logits, the NLL, the KL (0 if without weight), the largest probability: four (n,).

    The logits are lost: with `with_grad` they hold row_weight times the loss's gradient.
    """
    kl_weight, _, form, _, kl_clamp, gamma = settings
    dtype, classes = logits.dtype, logits.shape[1]
    points = take_points(logits, token)
    shift = _shift(points.logit, settings)
    one = (-shift).exp()
    evidence_p, slope_p = evidence_of(points.logit, settings.evidence, settings.logit_clamp, shift)
    evidence, slope, softmax, softmax_p = _others(logits, points, evidence_p, shift, settings, scratch)
    others = (_sum(softmax) + softmax_p[:, 1:]).clamp(min=torch.finfo(dtype).tiny)
    max_prob = softmax_p.amax(1, keepdim=True) / (others + softmax_p[:, :1])
    target, target_p = None, gamma * points.is_own
    if token_prob is None:
        target_p[:, 0] += 1 - gamma
    else:
        prob = token_prob.unsqueeze(1).double()
        share = (1 - gamma) * (1 - prob) / others
        target_p += torch.cat([(1 - gamma) * prob, share * softmax_p[:, 1:]], 1)
        target = torch.mul(softmax, share.to(dtype), out=next(scratch))

    rest_sum = _sum(evidence)
    strength = rest_sum + evidence_p.sum(1, keepdim=True) + classes * one
    pair = entries_of(evidence_p, slope_p, target_p, one, FRESH)
    nll = strength.log() + shift - (target_p * pair.log_alpha).sum(1, keepdim=True)
    kl, grad = torch.zeros_like(nll), None
    if target is not None or kl_weight:
        rest = entries_of(evidence, slope, target, one.to(dtype), scratch)
    if target is not None:
        nll -= _dot(target, rest.log_alpha)
    if kl_weight:
        kl, grad, kl_grad_p = _kl_in_form(form, rest, pair, one, scratch)
    if with_grad:
        weight = torch.ones_like(nll) if row_weight is None else row_weight.unsqueeze(1).double()
        others_alpha_p = rest_sum + evidence_p.flip(1) + (classes - 1) * one  # S - α, never by the difference
        grad_p = weight * ((1 - target_p) * slope_p - target_p * others_alpha_p * pair.slope_over_alpha) / strength
        if grad is not None:
            factor = kl_weight * weight * (kl <= kl_clamp)
            grad_p += factor * kl_grad_p
            grad.mul_(factor.to(dtype))
        if target is not None:
            by_target = target.mul_(weight.to(dtype)).mul_(rest.slope_over_alpha)
            grad = by_target.neg_() if grad is None else grad.sub_(by_target)
        _add_scaled(grad, slope, (weight / strength).to(dtype), out=logits)
        put_back(logits, points, grad_p)
    kl = kl.clamp(max=kl_clamp)
    return (nll + kl_weight * kl).squeeze(1), nll.squeeze(1), kl.squeeze(1), max_prob.squeeze(1)


def _shift(logit_p: Tensor, settings: EDLSettings) -> Tensor:
    """c of `one` = exp(-c), (n, 1)."""
    if settings.evidence != "exp":
        return torch.zeros_like(logit_p[:, 1:])
    return (logit_p.clamp(-settings.logit_clamp, settings.logit_clamp).amax(1, keepdim=True) - 60.0).clamp(min=0.0)


def _others(
    logits: Tensor, points: Points, evidence_p: Tensor, shift: Tensor, settings: EDLSettings, scratch: Scratch
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Evidence, slope and unnormalized softmax of all but the points (n, V); that softmax of the points. The logits may be lost."""
    if settings.evidence == "exp" and settings.logit_clamp == torch.inf:
        evidence = logits.sub_(shift.to(logits.dtype)).exp_()
        return evidence, evidence, evidence, evidence_p
    z_p = points.logit
    softmax = torch.sub(logits, z_p[:, 1:].to(logits.dtype), out=next(scratch))
    softmax = exp_of_shifted(softmax, out=softmax)
    softmax_p = (z_p - z_p[:, 1:]).clamp(max=600.0).exp()
    evidence, slope = evidence_of(logits, settings.evidence, settings.logit_clamp, shift.to(logits.dtype))
    evidence.scatter_(1, points.position, 0.0)
    return evidence, slope, softmax, softmax_p


def _add_scaled(grad: Tensor | None, slope: Tensor, factor: Tensor, *, out: Tensor) -> None:
    """grad + factor · slope; no `grad` is 0."""
    if grad is None:
        torch.mul(slope, factor, out=out)
    else:
        torch.addcmul(grad, slope, factor, out=out)


def evidence_of(logits: Tensor, evidence: Evidence, clamp: float, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Evidence times exp(-shift), and its derivative by the logit."""
    match evidence:
        case "exp":
            e = (logits.clamp(-clamp, clamp) - shift).exp_()
            return e, e.masked_fill(logits.abs() > clamp, 0.0)
        case "softplus":
            return softplus(logits), logits.sigmoid()
        case "relu":
            return logits.relu(), (logits > 0).to(logits.dtype)


def entries_of(evidence: Tensor, slope: Tensor, target: Tensor | None, one: Tensor, scratch: Scratch) -> Entries:
    """The entries of this evidence, its slope and the target's mass, with what the NLL and the KL both read of them.

    `evidence`, `slope` and `one` carry the row's factor of `_shift`, which the quotients are free of. Where `slope` is `evidence`,
    one tensor serves as `u` and `slope_over_alpha`.
    """
    inverse = torch.add(evidence, one, out=next(scratch)).reciprocal_()
    log_alpha = torch.div(evidence, one, out=next(scratch)).log1p_()
    if slope is evidence:
        u = slope_over_alpha = inverse.mul_(evidence)
    else:
        u, slope_over_alpha = torch.mul(evidence, inverse, out=next(scratch)), inverse.mul_(slope)
    return Entries(evidence, slope, target, u, slope_over_alpha, log_alpha)


def without_target(entries: Entries, one: Tensor, scratch: Scratch) -> Entries:
    """Form `soft`: the evidence (1 - target) e."""
    evidence, slope, target, *_ = entries
    if target is None:
        return entries
    of_others = torch.addcmul(evidence, evidence, target, value=-1, out=next(scratch))
    if slope is evidence:
        return entries_of(of_others, of_others, None, one, scratch)
    return entries_of(of_others, slope * (1 - target), None, one, scratch)


def _kl_in_form(form: EDLForm, rest: Entries, pair: Entries, one: Tensor, scratch: Scratch) -> tuple[Tensor, Tensor, Tensor]:
    """As `_kl`, of the evidence that the form leaves."""
    if form == "soft":
        rest, pair = without_target(rest, one.to(rest.evidence.dtype), scratch), without_target(pair, one, FRESH)
    return _kl(rest, pair, one, scratch)


def _kl(rest: Entries, pair: Entries, one: Tensor, scratch: Scratch) -> tuple[Tensor, Tensor, Tensor]:
    """The KL (n, 1), and its derivatives by the logits of the others and of the points; expected over the target if there is one."""
    dtype, classes = rest.evidence.dtype, rest.evidence.shape[1]
    g, q = unit_polynomials(dtype, rest.evidence.device)
    excess = in_powers(g, rest.u, out=next(scratch)).mul_(rest.u).sub_(rest.log_alpha, alpha=0.5)
    excess_p = in_powers(g.double(), pair.u) * pair.u - 0.5 * pair.log_alpha
    rest_sum = _sum(rest.evidence)
    total = rest_sum + pair.evidence.sum(1, keepdim=True)
    slopes: Sequence[Tensor]
    slopes_p: Sequence[Tensor]
    if pair.target is None:
        total_excess, *slopes = stirling_terms(total, classes, one)
        slopes_p = slopes
        kl = _sum(excess) + excess_p.sum(1, keepdim=True) - total_excess
    else:
        total_excess_p, *slopes_p = stirling_terms(rest_sum + pair.evidence.flip(1), classes, one)
        kl = _sum(excess) + ((1 - pair.target) * excess_p - pair.target * total_excess_p).sum(1, keepdim=True)
        # Σ over the *other* entries k of target_k times the slope at the total without k: never a difference of large terms
        weighted_p = [pair.target * x for x in slopes_p]
        slopes, slopes_p = [x.sum(1, keepdim=True) for x in weighted_p], [x.flip(1) for x in weighted_p]
        if rest.target is not None:
            totals = torch.sub(total.to(dtype), rest.evidence, out=next(scratch))
            totals_excess, *weighted = stirling_terms(totals, classes, one.to(dtype), scratch)
            kl -= _dot(rest.target, excess.add_(totals_excess))
            sums = [_sum(x.mul_(rest.target)) for x in weighted]
            slopes_p = [x + y for x, y in zip(slopes_p, sums, strict=True)]
            slopes = [torch.sub((x + y).to(dtype), own, out=own) for x, y, own in zip(slopes, sums, weighted, strict=True)]
    grad = kl_by_logit(rest, q, [x.to(dtype) for x in slopes], one.to(dtype), scratch)
    return kl, grad, kl_by_logit(pair, q.double(), slopes_p, one, FRESH)


def kl_by_logit(entries: Entries, q: Tensor, slopes: Sequence[Tensor], one: Tensor, scratch: Scratch) -> Tensor:
    """(h_1' - slope) d e/d z, with 1 - h_1' and 1 - slope where the plain difference would cancel."""
    slope, slope_less_1 = slopes
    value = in_powers(q, entries.u, out=next(scratch)).mul_(entries.u)
    if entries.target is not None:
        value.addcmul_(value, entries.target, value=-1)
    return value.sub_(slope).addcmul_(entries.evidence, slope_less_1 / one, value=-1).mul_(entries.slope_over_alpha)


def _sum(x: Tensor) -> Tensor:
    return x.sum(1, keepdim=True).double()


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return torch.linalg.vecdot(x, y).unsqueeze(1).double()
