"""`raw2s.losses.edl_rows` by passes in Triton: one over the logits for a row's sums, one that writes its gradient.

Where the target has mass on all entries, a third stands between them: that mass follows the softmax, whose sum the first gives.
What there is one or two of in a row is in fp64 and torch, and taken from the namesake.
"""

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from raw2s.losses.cuda import edl_kernels as kernels
from raw2s.losses.cuda.launch import finite, launch
from raw2s.losses.dirichlet import FRESH, Scratch, in_powers, stirling_terms, unit_polynomials
from raw2s.losses.edl import EDLForm
from raw2s.losses.edl_rows import EDLSettings, Entries, entries_of, evidence_of, kl_by_logit, without_target
from raw2s.losses.linear_rows import gradient_memory
from raw2s.losses.points import Points, points_of


class _Rows(NamedTuple):
    """What the first pass gives; (n, 1) but for the points, (n, 2), all fp64. Evidence is times `one`."""

    found: Tensor
    """(n, 8), as the kernel leaves it."""
    points: Points
    one: Tensor
    evidence_p: Tensor
    slope_p: Tensor
    softmax_p: Tensor
    rest_sum: Tensor
    """Evidence of all but the points."""
    others: Tensor
    """exp(z - reference) of all but the target."""


class _KL(NamedTuple):
    value: Tensor
    slope: Tensor
    """Of the total's excess, for all but the points."""
    slope_less_1: Tensor
    by_point: Tensor
    """The derivative by the points' logits."""


def edl_rows(
    logits: Tensor,
    token: Tensor,
    token_prob: Tensor | None,
    row_weight: Tensor | None,
    _: Scratch,
    *,
    settings: EDLSettings,
    with_grad: bool,
    grad_dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As its namesake, of (n, V) fp32 logits; `with_grad`, their gradient is in their `gradient_memory`, else they are left alone."""
    rows = _first_pass(logits, token, settings)
    max_prob = rows.softmax_p.amax(1, keepdim=True) / (rows.others + rows.softmax_p[:, :1])
    target_p, share = _target(rows, token_prob, settings.gamma)
    pair = entries_of(rows.evidence_p, rows.slope_p, target_p, rows.one, FRESH)
    total = rows.rest_sum + rows.evidence_p.sum(1, keepdim=True)
    strength = total + logits.shape[1] * rows.one
    nll = strength.log() - rows.one.log() - (target_p * pair.log_alpha).sum(1, keepdim=True)
    weighted = None
    if share is not None:
        weighted = _target_pass(logits, token, rows, torch.cat([share, total], 1), settings)
        nll -= weighted[:, :1]
    kl = _kl(pair, rows, weighted, settings.form, logits.shape[1]) if settings.kl_weight else None
    if with_grad:
        weight = torch.ones_like(nll) if row_weight is None else row_weight.unsqueeze(1).double()
        others_alpha_p = rows.rest_sum + rows.evidence_p.flip(1) + (logits.shape[1] - 1) * rows.one
        grad_p = weight * ((1 - target_p) * pair.slope - target_p * others_alpha_p * pair.slope_over_alpha) / strength
        by_kl = [torch.zeros_like(nll)] * 3
        if kl is not None:
            factor = settings.kl_weight * weight * (kl.value <= settings.kl_clamp)
            grad_p += factor * kl.by_point
            by_kl = [factor, kl.slope, kl.slope_less_1 / rows.one]
        of_target = [torch.zeros_like(nll) if share is None else share, weight, total]
        values = torch.cat([weight / strength, *by_kl, *of_target, grad_p, rows.found[:, 2:3]], 1)
        _gradient_pass(logits, gradient_memory(logits, grad_dtype), token, rows.found, values, settings, soft=share is not None)
    kl_value = torch.zeros_like(nll) if kl is None else kl.value.clamp(max=settings.kl_clamp)
    return tuple(x.squeeze(1) for x in (nll + settings.kl_weight * kl_value, nll, kl_value, max_prob))  # type: ignore[return-value]


def _first_pass(logits: Tensor, token: Tensor, settings: EDLSettings) -> _Rows:
    found = logits.new_empty(len(logits), 8, dtype=torch.float64)
    constants = _constants(settings)
    apart = settings.evidence != "exp" or constants["CLAMPED"]
    launch(
        kernels.sums, logits, token, found, finite(settings.logit_clamp),
        G=_coefficients()[0], APART=apart, **constants,
    )  # fmt: skip
    points = points_of(token, found[:, 2].long(), found[:, :2])
    one = torch.exp2(-found[:, 3:4])
    evidence_p, slope_p = evidence_of(points.logit, settings.evidence, settings.logit_clamp, -one.log())
    softmax_p = (points.logit - found[:, 4:5]).clamp(max=600.0).exp() if apart else evidence_p
    rest_sum = found[:, 5:6]
    others = ((found[:, 6:7] if apart else rest_sum) + softmax_p[:, 1:]).clamp(min=torch.finfo(torch.float32).tiny)
    return _Rows(found, points, one, evidence_p, slope_p, softmax_p, rest_sum, others)


def _target(rows: _Rows, token_prob: Tensor | None, gamma: float) -> tuple[Tensor, Tensor | None]:
    """The points' target, and what exp(z - reference) times is the others'."""
    target_p = gamma * rows.points.is_own
    if token_prob is None:
        target_p[:, 0] += 1 - gamma
        return target_p, None
    prob = token_prob.unsqueeze(1).double()
    share = (1 - gamma) * (1 - prob) / rows.others
    return target_p + torch.cat([(1 - gamma) * prob, share * rows.softmax_p[:, 1:]], 1), share


def _target_pass(logits: Tensor, token: Tensor, rows: _Rows, values: Tensor, settings: EDLSettings) -> Tensor:
    weighted = logits.new_empty(len(logits), 4, dtype=torch.float64)
    launch(
        kernels.target_sums, logits, token, rows.found, values, weighted, finite(settings.logit_clamp),
        G=_coefficients()[0], FORM=settings.form, **_constants(settings),
    )  # fmt: skip
    return weighted


def _gradient_pass(
    logits: Tensor, grad: Tensor, token: Tensor, found: Tensor, values: Tensor, settings: EDLSettings, *, soft: bool
) -> None:
    launch(
        kernels.gradient, logits, token, found, values, grad, grad.stride(0), finite(settings.logit_clamp),
        Q=_coefficients()[1], SOFT=soft, FORM=settings.form, **_constants(settings),
    )  # fmt: skip


def _kl(pair: Entries, rows: _Rows, weighted: Tensor | None, form: EDLForm, classes: int) -> _KL:
    """As in `raw2s.losses.edl_rows`, the sums over all but the points being there already."""
    g, q = (x.double() for x in unit_polynomials(torch.float32, pair.u.device))
    rest_sum, excess = rows.rest_sum, rows.found[:, 7:8]
    if form == "soft":
        pair = without_target(pair, rows.one, FRESH)
        if weighted is not None:
            rest_sum, excess = weighted[:, 1:2], weighted[:, 2:3]
    excess_p = in_powers(g, pair.u) * pair.u - 0.5 * pair.log_alpha
    if pair.target is None:
        total_excess, *slopes = stirling_terms(rest_sum + pair.evidence.sum(1, keepdim=True), classes, rows.one)
        value = excess + excess_p.sum(1, keepdim=True) - total_excess
        return _KL(value, slopes[0], slopes[1], kl_by_logit(pair, q, slopes, rows.one, FRESH))
    total_excess_p, *slopes_p = stirling_terms(rest_sum + pair.evidence.flip(1), classes, rows.one)
    value = excess + ((1 - pair.target) * excess_p - pair.target * total_excess_p).sum(1, keepdim=True)
    weighted_p = [pair.target * x for x in slopes_p]
    slopes, slopes_p = [x.sum(1, keepdim=True) for x in weighted_p], [x.flip(1) for x in weighted_p]
    if weighted is not None:
        value -= weighted[:, 1:2]
        sums = [weighted[:, 2:3], weighted[:, 3:4]]
        slopes, slopes_p = ([x + y for x, y in zip(some, sums, strict=True)] for some in (slopes, slopes_p))
    return _KL(value, slopes[0], slopes[1], kl_by_logit(pair, q, slopes_p, rows.one, FRESH))


def _constants(settings: EDLSettings) -> dict[str, Any]:
    clamped = settings.evidence == "exp" and finite(settings.logit_clamp) > 0
    return {"EVIDENCE": settings.evidence, "CLAMPED": clamped, "KL": settings.kl_weight != 0}


@cache
def _coefficients() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of G and Q, lowest first."""
    g, q = unit_polynomials(torch.float32, torch.device("cpu"))
    return tuple(g.tolist()), tuple(q.tolist())
