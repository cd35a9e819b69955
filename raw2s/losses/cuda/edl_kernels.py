"""The EDL loss's passes over rows of fp32 logits, one program a row (`raw2s.losses.edl_rows` has the mathematics).

As there, evidence and the 1 of α = e + 1 are held times `one`: here 2⁻ᵏ, and k > 0 only for exp evidence in rows with logits beyond
60. Of Σ log(e + one) a lane keeps the product: its mantissa, its exponent, and in `low` what rounding e + one lost.
"""

from typing import Any

import triton
import triton.language as tl

from raw2s.losses.cuda.cross_entropy_kernels import NOTHING, SAFE, best_of, hold_back, logits_at, put_points

LOG2 = tl.constexpr(0.6931471805599453)
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _one(k: tl.tensor) -> Any:
    """2⁻ᵏ, exactly."""
    return ((127 - k) << 23).to(tl.float32, bitcast=True)


@triton.jit
def _evidence(z: tl.tensor, k: tl.tensor, limit: tl.tensor, EVIDENCE: tl.constexpr, CLAMPED: tl.constexpr) -> Any:
    """Evidence times 2⁻ᵏ, and its derivative by the logit."""
    if EVIDENCE == "exp":
        if CLAMPED:
            inside = tl.where(z > limit, limit, tl.where(z < -limit, -limit, z))
            e = tl.exp(inside - k.to(z.dtype) * LOG2)
            slope = tl.where(tl.abs(z) > limit, 0.0, e)
        else:
            e = tl.exp(z - k.to(z.dtype) * LOG2)
            slope = e
    elif EVIDENCE == "softplus":
        small = tl.exp(-tl.abs(z))
        v = 1.0 / (small + 1.0)
        e = tl.where(z <= 0, 0.0, z) + _log_alpha(small, v, tl.full((), 0, tl.int32))
        slope = tl.where(z > 0, 1.0, small) * v
    else:
        e = tl.where(z <= 0, 0.0, z)
        slope = tl.where(z > 0, 1.0, 0.0)
    return e, slope


@triton.jit
def _log_alpha(e: tl.tensor, v: tl.tensor, k: tl.tensor) -> Any:
    """log(1 + 2ᵏ e), with what rounding the sum lost; v is 1 / (e + one)."""
    w = e + _one(k)
    return tl.log(w) + (e - (w - _one(k))) * v + k.to(e.dtype) * LOG2


@triton.jit
def _in_powers(C: tl.constexpr, x: tl.tensor) -> Any:
    """C[0] + C[1] x + ... + C[8] x⁸."""
    high = ((C[8] * x + C[7]) * x + C[6]) * x + C[5]
    return ((((high * x + C[4]) * x + C[3]) * x + C[2]) * x + C[1]) * x + C[0]


@triton.jit
def _add_log(e: tl.tensor, v: tl.tensor, k: tl.tensor, mantissa: tl.tensor, exponent: tl.tensor, low: tl.tensor) -> Any:
    """Adds log(1 + 2ᵏ e) to log mantissa + exponent · log 2 + low, with mantissa in [1, 2).

    A small e by its series: times a mantissa near 1, the rounding of many would not be random.
    """
    one, w = _one(k), e + _one(k)
    x = e * _one(-k)
    is_small = x < 1 / 32
    series = x - x * x * (1 / 2 - x * (1 / 3 - x * (1 / 4 - x * (1 / 5))))
    low += tl.where(is_small, series, (e - (w - one)) * v)
    bits = (mantissa * tl.where(is_small, one, w)).to(tl.int32, bitcast=True)
    return ((bits & 0x7FFFFF) | 0x3F800000).to(tl.float32, bitcast=True), exponent + ((bits >> 23) - 127 + k), low


@triton.jit
def _add(
    z: tl.tensor, k: tl.tensor, reference: tl.tensor, limit: tl.tensor, totals: tl.tensor, G: tl.constexpr,
    EVIDENCE: tl.constexpr, CLAMPED: tl.constexpr, KL: tl.constexpr, APART: tl.constexpr,
) -> Any:  # fmt: skip
    """Adds some entries to the lanes' totals: evidence, softmax, u G(u), mantissa, exponent, low."""
    evidence, softmax, excess, mantissa, exponent, low = totals
    e, _ = _evidence(z, k, limit, EVIDENCE, CLAMPED)
    if CLAMPED:
        e = tl.where(z < NOTHING / 2, 0.0, e)
    evidence += e
    if APART:
        softmax += tl.exp(z - reference)
    if KL:
        v = 1.0 / (e + _one(k))
        excess += _in_powers(G, e * v) * (e * v)
        mantissa, exponent, low = _add_log(e, v, k, mantissa, exponent, low)
    return evidence, softmax, excess, mantissa, exponent, low


@triton.jit
def _excess_of(excess: tl.tensor, mantissa: tl.tensor, exponent: tl.tensor, low: tl.tensor) -> Any:
    """Σ (u G(u) - ½ log(1 + e)) of all lanes, fp64."""
    logs = tl.sum(exponent, 0).to(tl.float64) * LOG2 + tl.sum((tl.log(mantissa) + low).to(tl.float64), 0)
    return tl.sum(excess.to(tl.float64), 0) - 0.5 * logs


@triton.jit
def _sweep(
    start: tl.tensor, target: tl.tensor, vocabulary: tl.tensor, width: tl.tensor, k: tl.tensor, reference: tl.tensor,
    limit: tl.tensor, G: tl.constexpr, EVIDENCE: tl.constexpr, CLAMPED: tl.constexpr, KL: tl.constexpr, APART: tl.constexpr,
    PADDED: tl.constexpr, BLOCK: tl.constexpr,
) -> Any:  # fmt: skip
    lane = tl.arange(0, BLOCK)
    held = tl.full((BLOCK,), NOTHING, tl.float32)
    at = tl.zeros((BLOCK,), tl.int32)
    zeros = tl.zeros((BLOCK,), tl.float32)
    totals = (zeros, zeros, zeros, zeros + 1.0, at, zeros)
    for first in range(0, vocabulary, BLOCK):
        column = first + lane
        z = logits_at(start, column, vocabulary, width, PADDED)
        z, held, at = hold_back(tl.where(column == target, NOTHING, z), held, at, first)
        totals = _add(z, k, reference, limit, totals, G, EVIDENCE, CLAMPED, KL, APART)
    best, position, rest = best_of(held, at, lane)
    totals = _add(rest, k, reference, limit, totals, G, EVIDENCE, CLAMPED, KL, APART)
    evidence, softmax = tl.sum(totals[0].to(tl.float64), 0), tl.sum(totals[1].to(tl.float64), 0)
    return best, position, evidence, softmax, _excess_of(totals[2], totals[3], totals[4], totals[5])


@triton.jit
def sums(
    logits: tl.tensor, stride: tl.tensor, vocabulary: tl.tensor, width: tl.tensor, token: tl.tensor, found: tl.tensor,
    limit: tl.tensor, G: tl.constexpr, EVIDENCE: tl.constexpr, CLAMPED: tl.constexpr, KL: tl.constexpr, APART: tl.constexpr,
    PADDED: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """found (n, 8), fp64: z of the target, the best other, its place, k, r, and without both Σ e, Σ exp(z - r), Σ excess.

    `KL`: the excess is wanted; `APART`: the softmax is not the evidence.
    """
    row = tl.program_id(0)
    start = logits + row.to(tl.int64) * stride
    target = tl.load(token + row).to(tl.int32)
    z_target = tl.load(start + target)
    k, reference = tl.full((), 0, tl.int32), tl.full((), 0.0, tl.float32)
    best, position, evidence, softmax, excess = _sweep(
        start, target, vocabulary, width, k, reference, limit, G, EVIDENCE, CLAMPED, KL, APART, PADDED, BLOCK
    )
    if EVIDENCE == "exp":
        top = tl.where(best > z_target, best, z_target)
        if CLAMPED:
            top = tl.where(top > limit, limit, top)
        k = tl.where(top > SAFE, tl.minimum(tl.ceil((top - SAFE) * LOG2_E), 126.0), 0.0).to(tl.int32)
    if APART:
        reference = tl.where(tl.abs(best) > SAFE, best, 0.0)
    if (k > 0) | (reference != 0.0):
        best, position, evidence, softmax, excess = _sweep(
            start, target, vocabulary, width, k, reference, limit, G, EVIDENCE, CLAMPED, KL, APART, PADDED, BLOCK
        )
    if not APART:
        reference = k.to(tl.float32) * LOG2
    found += row * 8
    tl.store(found, z_target.to(tl.float64))
    tl.store(found + 1, best.to(tl.float64))
    tl.store(found + 2, position.to(tl.float64))
    tl.store(found + 3, k.to(tl.float64))
    tl.store(found + 4, reference.to(tl.float64))
    tl.store(found + 5, evidence)
    tl.store(found + 6, softmax)
    tl.store(found + 7, excess)


@triton.jit
def _total_slopes(r: tl.tensor, v: tl.tensor, one: tl.tensor, classes: tl.tensor) -> Any:
    """(h_c'(r), h_c'(r) - 1) of c classes, by Stirling's series (`raw2s.losses.dirichlet.stirling_terms`); v is 1 / (r + c one)."""
    inverse, share = one * v, r * v
    square = inverse * inverse
    bernoulli = ((square * (1 / 42) - 1 / 30) * square + 1 / 6) * inverse
    common = inverse * (bernoulli + 0.5) * share
    return share + common, common - classes * inverse


@triton.jit
def _total_excess(r: tl.tensor, v: tl.tensor, k: tl.tensor, classes: tl.tensor) -> Any:
    """h_c(r) - r."""
    inverse = _one(k) * v
    square = inverse * inverse
    digamma = ((square * (1 / 252) - 1 / 120) * square + 1 / 12) * inverse
    value = (digamma + 0.5) * (r * v) + (classes - 0.5) * _log_alpha(r * (1.0 / classes), classes * v, k)
    return _lgamma_series(1.0 / classes) - value - _lgamma_series(inverse)


@triton.jit
def _lgamma_series(x: tl.tensor) -> Any:
    return ((x * x * (1 / 1260) - 1 / 360) * (x * x) + 1 / 12) * x


@triton.jit
def target_sums(
    logits: tl.tensor, stride: tl.tensor, vocabulary: tl.tensor, width: tl.tensor, token: tl.tensor, found: tl.tensor,
    values: tl.tensor, weighted: tl.tensor, limit: tl.tensor, G: tl.constexpr, EVIDENCE: tl.constexpr, CLAMPED: tl.constexpr,
    KL: tl.constexpr, FORM: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """What depends on the target share · exp(z - r): weighted (n, 4), fp64, from values (n, 2), fp64: share and Σ e.

    Σ t log α; then for the form `expected` Σ t (excess + excess of the total without e), Σ t h', Σ t (h' - 1) at that total;
    for `soft` Σ (1 - t) e and its Σ excess.
    """
    row = tl.program_id(0)
    start = logits + row.to(tl.int64) * stride
    target = tl.load(token + row).to(tl.int32)
    found, values, weighted = found + row * 8, values + row * 2, weighted + row * 4
    best, k = tl.load(found + 2).to(tl.int32), tl.load(found + 3).to(tl.int32)
    reference = tl.load(found + 4).to(tl.float32)
    share, total = tl.load(values).to(tl.float32), tl.load(values + 1).to(tl.float32)
    one, classes = _one(k), vocabulary.to(tl.float32)
    lane = tl.arange(0, BLOCK)
    zeros = tl.zeros((BLOCK,), tl.float32)
    logs, first_sum, second_sum, third_sum, low = zeros, zeros, zeros, zeros, zeros
    mantissa, exponent = zeros + 1.0, tl.zeros((BLOCK,), tl.int32)
    for first in range(0, vocabulary, BLOCK):
        column = first + lane
        z = logits_at(start, column, vocabulary, width, PADDED)
        z = tl.where((column == target) | (column == best), NOTHING, z)
        e, _ = _evidence(z, k, limit, EVIDENCE, CLAMPED)
        if CLAMPED:
            e = tl.where(z < NOTHING / 2, 0.0, e)
        t = share * tl.exp(z - reference)
        v = 1.0 / (e + one)
        log_alpha = _log_alpha(e, v, k)
        logs += t * log_alpha
        if KL and FORM == "expected":
            excess = _in_powers(G, e * v) * (e * v) - 0.5 * log_alpha
            total_v = 1.0 / (total - e + classes * one)
            slope, slope_less_1 = _total_slopes(total - e, total_v, one, classes)
            first_sum += t * (excess + _total_excess(total - e, total_v, k, classes))
            second_sum += t * slope
            third_sum += t * slope_less_1
        elif KL:
            e = e - t * e
            first_sum += e
            v = 1.0 / (e + one)
            second_sum += _in_powers(G, e * v) * (e * v)
            mantissa, exponent, low = _add_log(e, v, k, mantissa, exponent, low)
    tl.store(weighted, tl.sum(logs.to(tl.float64), 0))
    if KL:
        tl.store(weighted + 1, tl.sum(first_sum.to(tl.float64), 0))
        if FORM == "expected":
            tl.store(weighted + 2, tl.sum(second_sum.to(tl.float64), 0))
            tl.store(weighted + 3, tl.sum(third_sum.to(tl.float64), 0))
        else:
            tl.store(weighted + 2, _excess_of(second_sum, mantissa, exponent, low))


@triton.jit
def gradient(
    logits: tl.tensor, stride: tl.tensor, vocabulary: tl.tensor, width: tl.tensor, token: tl.tensor, found: tl.tensor,
    values: tl.tensor, grad: tl.tensor, grad_stride: tl.tensor, limit: tl.tensor, Q: tl.constexpr, EVIDENCE: tl.constexpr,
    CLAMPED: tl.constexpr, KL: tl.constexpr, SOFT: tl.constexpr, FORM: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """The gradient by the logits, over the logits' memory or elsewhere, from `found` and values (n, 10), fp64:

    weight / Σ α, KL weight, the total's slope, that less 1 over `one`, share, weight, Σ e, target's and best's gradient, best's place.
    """
    row = tl.program_id(0)
    start, out = logits + row.to(tl.int64) * stride, grad + row.to(tl.int64) * grad_stride
    found, values = found + row * 8, values + row * 10
    k, reference = tl.load(found + 3).to(tl.int32), tl.load(found + 4).to(tl.float32)
    by_strength, factor = tl.load(values).to(tl.float32), tl.load(values + 1).to(tl.float32)
    total_slope, total_less_1 = tl.load(values + 2).to(tl.float32), tl.load(values + 3).to(tl.float32)
    share, weight, total = (
        tl.load(values + 4).to(tl.float32),
        tl.load(values + 5).to(tl.float32),
        tl.load(values + 6).to(tl.float32),
    )
    one, scale, classes = _one(k), _one(-k), vocabulary.to(tl.float32)
    lane = tl.arange(0, BLOCK)
    for first in range(0, vocabulary, BLOCK):
        column = first + lane
        z = logits_at(start, column, vocabulary, width, PADDED)
        e, slope = _evidence(z, k, limit, EVIDENCE, CLAMPED)
        v = 1.0 / (e + one)
        value = slope * by_strength
        if SOFT:
            t = share * tl.exp(z - reference)
            value -= weight * t * (slope * v)
        if KL and SOFT and FORM == "soft":
            e, slope = e - t * e, slope - t * slope
            v = 1.0 / (e + one)
            value += factor * (slope * v) * (_in_powers(Q, e * v) * (e * v) - total_slope - e * total_less_1)
        elif KL and SOFT:
            own, own_less_1 = _total_slopes(total - e, 1.0 / (total - e + classes * one), one, classes)
            polynomial = _in_powers(Q, e * v) * (e * v)
            by_evidence = polynomial - t * polynomial - (total_slope - t * own) - e * (total_less_1 - t * own_less_1 * scale)
            value += factor * (slope * v) * by_evidence
        elif KL:
            value += factor * (slope * v) * (_in_powers(Q, e * v) * (e * v) - total_slope - e * total_less_1)
        tl.debug_barrier()
        tl.store(out + column, value.to(grad.dtype.element_ty), mask=column < width)
    put_points(out, tl.load(token + row), values + 7)
