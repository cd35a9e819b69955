"""What is one or two of in a row of the EDL loss, in fp64, many rows a program: `raw2s.losses.edl_rows` has the mathematics.

In torch these are some 150 launches on a few thousand numbers, 5 % of the head at V = 32,000. Suffixes: _t the target, _b the best other.
"""

from typing import Any

import triton
import triton.language as tl

from raw2s.losses.cuda.edl_kernels import LOG2, _evidence, _in_powers, _log_alpha, _one, _total_excess, _total_slopes

TINY = tl.constexpr(1.1754943508222875e-38)
"""The smallest normal fp32 number."""


@triton.jit
def _softmax(z: tl.tensor, e: tl.tensor, reference: tl.tensor, APART: tl.constexpr) -> Any:
    """exp(z - reference) of a point, kept finite."""
    if APART:
        e = tl.exp(tl.where(z - reference > 600.0, 600.0, z - reference))
    return e


@triton.jit
def _points(
    found: tl.tensor, here: tl.tensor, limit: tl.tensor, EVIDENCE: tl.constexpr, CLAMPED: tl.constexpr, APART: tl.constexpr
) -> Any:
    """Of both points evidence, slope and softmax; then exp(z - reference) of all but the target."""
    k = tl.load(found + 3, mask=here, other=0.0).to(tl.int32)
    reference = tl.load(found + 4, mask=here, other=0.0)
    z_t, z_b = tl.load(found, mask=here, other=0.0), tl.load(found + 1, mask=here, other=0.0)
    e_t, slope_t = _evidence(z_t, k, limit, EVIDENCE, CLAMPED)
    e_b, slope_b = _evidence(z_b, k, limit, EVIDENCE, CLAMPED)
    softmax_t, softmax_b = _softmax(z_t, e_t, reference, APART), _softmax(z_b, e_b, reference, APART)
    others = tl.load(found + (6 if APART else 5), mask=here, other=1.0) + softmax_b
    return e_t, slope_t, softmax_t, e_b, slope_b, softmax_b, tl.where(others < TINY, TINY, others)


@triton.jit
def shares(
    found: tl.tensor, token_prob: tl.tensor, values: tl.tensor, rows: tl.tensor, gamma: tl.tensor, limit: tl.tensor,
    EVIDENCE: tl.constexpr, CLAMPED: tl.constexpr, APART: tl.constexpr, ROWS: tl.constexpr,
) -> None:  # fmt: skip
    """values (n, 2), fp64: what exp(z - reference) times is the target of all but the points, and Σ e of the whole row."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    here = row < rows
    found, values = found + row * 8, values + row * 2
    e_t, _, _, e_b, _, _, others = _points(found, here, limit, EVIDENCE, CLAMPED, APART)
    not_prob = 1 - tl.load(token_prob + row, mask=here, other=1.0).to(tl.float64)
    tl.store(values, (not_prob - gamma * not_prob) / others, mask=here)
    tl.store(values + 1, tl.load(found + 5, mask=here, other=0.0) + e_t + e_b, mask=here)


@triton.jit
def _excess(e: tl.tensor, v: tl.tensor, log_alpha: tl.tensor, G: tl.constexpr) -> Any:
    return _in_powers(G, e * v) * (e * v) - 0.5 * log_alpha


@triton.jit
def _by_point(
    e: tl.tensor, slope: tl.tensor, v: tl.tensor, of_target: tl.tensor, total: tl.tensor, less: tl.tensor, one: tl.tensor,
    Q: tl.constexpr,
) -> Any:  # fmt: skip
    """The KL's derivative by a point's logit, given the slope of its total and that less 1."""
    polynomial = _in_powers(Q, e * v) * (e * v)
    return (polynomial - polynomial * of_target - total - e * (less / one)) * (slope * v)


@triton.jit
def _kl_of_soft(
    e_t: tl.tensor, slope_t: tl.tensor, target_t: tl.tensor, e_b: tl.tensor, slope_b: tl.tensor, target_b: tl.tensor,
    rest: tl.tensor, excess: tl.tensor, k: tl.tensor, classes: tl.tensor, G: tl.constexpr, Q: tl.constexpr,
) -> Any:  # fmt: skip
    """Form `soft`, of evidence (1 - target) e: the KL, its total's slope and that less 1, the derivatives by both points."""
    one = _one(k)
    e_t, slope_t = e_t - e_t * target_t, slope_t - slope_t * target_t
    e_b, slope_b = e_b - e_b * target_b, slope_b - slope_b * target_b
    v_t, v_b = 1.0 / (e_t + one), 1.0 / (e_b + one)
    excess += _excess(e_t, v_t, _log_alpha(e_t, v_t, k), G) + _excess(e_b, v_b, _log_alpha(e_b, v_b, k), G)
    total = rest + (e_t + e_b)
    v = 1.0 / (total + classes * one)
    slope, less = _total_slopes(total, v, one, classes)
    by_t = _by_point(e_t, slope_t, v_t, e_t * 0.0, slope, less, one, Q)
    by_b = _by_point(e_b, slope_b, v_b, e_b * 0.0, slope, less, one, Q)
    return excess - _total_excess(total, v, k, classes), slope, less, by_t, by_b


@triton.jit
def _kl_expected(
    e_t: tl.tensor, slope_t: tl.tensor, target_t: tl.tensor, e_b: tl.tensor, slope_b: tl.tensor, target_b: tl.tensor,
    rest: tl.tensor, sums: tl.tensor, k: tl.tensor, classes: tl.tensor, G: tl.constexpr, Q: tl.constexpr,
) -> Any:  # fmt: skip
    """Form `expected`, likewise; sums of all but the points: the excess less the target's, and Σ t h', Σ t (h' - 1)."""
    one, value = _one(k), sums[0]
    v_t, v_b = 1.0 / (e_t + one), 1.0 / (e_b + one)
    without_t, without_b = rest + e_b, rest + e_t
    v_without_t, v_without_b = 1.0 / (without_t + classes * one), 1.0 / (without_b + classes * one)
    value += (1 - target_t) * _excess(e_t, v_t, _log_alpha(e_t, v_t, k), G)
    value += (1 - target_b) * _excess(e_b, v_b, _log_alpha(e_b, v_b, k), G)
    value -= target_t * _total_excess(without_t, v_without_t, k, classes)
    value -= target_b * _total_excess(without_b, v_without_b, k, classes)
    total_t, less_t = _total_slopes(without_t, v_without_t, one, classes)
    total_b, less_b = _total_slopes(without_b, v_without_b, one, classes)
    total_t, less_t, total_b, less_b = target_t * total_t, target_t * less_t, target_b * total_b, target_b * less_b
    by_t = _by_point(e_t, slope_t, v_t, target_t, total_b + sums[1], less_b + sums[2], one, Q)
    by_b = _by_point(e_b, slope_b, v_b, target_b, total_t + sums[1], less_t + sums[2], one, Q)
    return value, total_t + total_b + sums[1], less_t + less_b + sums[2], by_t, by_b


@triton.jit
def _kl_in_form(
    e_t: tl.tensor, slope_t: tl.tensor, target_t: tl.tensor, e_b: tl.tensor, slope_b: tl.tensor, target_b: tl.tensor,
    rest: tl.tensor, excess: tl.tensor, weighted: tl.tensor, here: tl.tensor, k: tl.tensor, classes: tl.tensor,
    G: tl.constexpr, Q: tl.constexpr, FORM: tl.constexpr,
) -> Any:  # fmt: skip
    """Either form; with `weighted` the sums of a target on all entries, at these rows."""
    if FORM == "soft":
        if weighted is not None:
            rest, excess = tl.load(weighted + 1, mask=here, other=0.0), tl.load(weighted + 2, mask=here, other=0.0)
        found = _kl_of_soft(e_t, slope_t, target_t, e_b, slope_b, target_b, rest, excess, k, classes, G, Q)
    else:
        zero = here.to(tl.float64) * 0.0
        sums = (excess, zero, zero)
        if weighted is not None:
            excess -= tl.load(weighted + 1, mask=here, other=0.0)
            sums = (excess, tl.load(weighted + 2, mask=here, other=0.0), tl.load(weighted + 3, mask=here, other=0.0))
        found = _kl_expected(e_t, slope_t, target_t, e_b, slope_b, target_b, rest, sums, k, classes, G, Q)
    return found


@triton.jit
def _store_values(
    values: tl.tensor, found: tl.tensor, here: tl.tensor, by_strength: tl.tensor, share: tl.tensor, weight: tl.tensor,
    total: tl.tensor, grad_t: tl.tensor, grad_b: tl.tensor,
) -> None:  # fmt: skip
    """What the gradient pass takes of a row apart from the KL's factor and slopes (1 to 3)."""
    tl.store(values, by_strength, mask=here)
    tl.store(values + 4, share, mask=here)
    tl.store(values + 5, weight, mask=here)
    tl.store(values + 6, total, mask=here)
    tl.store(values + 7, grad_t, mask=here)
    tl.store(values + 8, grad_b, mask=here)
    tl.store(values + 9, tl.load(found + 2, mask=here, other=0.0), mask=here)


@triton.jit
def figures(
    found: tl.tensor, token_prob: tl.tensor, row_weight: tl.tensor, weighted: tl.tensor, out: tl.tensor, values: tl.tensor,
    rows: tl.tensor, vocabulary: tl.tensor, gamma: tl.tensor, kl_weight: tl.tensor, kl_clamp: tl.tensor, limit: tl.tensor,
    G: tl.constexpr, Q: tl.constexpr, FORM: tl.constexpr, EVIDENCE: tl.constexpr, CLAMPED: tl.constexpr, KL: tl.constexpr,
    APART: tl.constexpr, ROWS: tl.constexpr,
) -> None:  # fmt: skip
    """out (4, n), fp64: loss, NLL, KL, largest probability; values (n, 10), fp64: what `edl_kernels.gradient` takes.

    `token_prob` and the sums `weighted` of the target pass are None for a one-hot target, `row_weight` for weights of 1.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    here = row < rows
    found, values, out = found + row * 8, values + row * 10, out + row
    e_t, slope_t, softmax_t, e_b, slope_b, softmax_b, others = _points(found, here, limit, EVIDENCE, CLAMPED, APART)
    k = tl.load(found + 3, mask=here, other=0.0).to(tl.int32)
    rest, excess = tl.load(found + 5, mask=here, other=0.0), tl.load(found + 7, mask=here, other=0.0)
    target_is_own = tl.load(found, mask=here, other=0.0) >= tl.load(found + 1, mask=here, other=0.0)
    own = tl.where(target_is_own, 1.0, 0.0).to(tl.float64)
    one, classes = _one(k), vocabulary.to(tl.float64)

    target_b, share = gamma * (1 - own), own * 0.0
    target_t = 1 - target_b
    if token_prob is not None:
        prob = tl.load(token_prob + row, mask=here, other=1.0).to(tl.float64)
        share = ((1 - prob) - gamma * (1 - prob)) / others
        target_t, target_b = prob + gamma * (own - prob), target_b + share * softmax_b
    total = rest + e_t + e_b
    strength = total + classes * one
    v_t, v_b = 1.0 / (e_t + one), 1.0 / (e_b + one)
    nll = tl.log(strength) + k.to(tl.float64) * LOG2
    nll -= target_t * _log_alpha(e_t, v_t, k) + target_b * _log_alpha(e_b, v_b, k)
    if weighted is not None:
        weighted += row * 4
        nll -= tl.load(weighted, mask=here, other=0.0)

    weight = share * 0.0 + 1.0
    if row_weight is not None:
        weight = tl.load(row_weight + row, mask=here, other=0.0).to(tl.float64)
    # strength less a point's α, never by the difference
    grad_t = (1 - target_t) * slope_t - target_t * (rest + e_b + (classes - 1) * one) * (slope_t * v_t)
    grad_b = (1 - target_b) * slope_b - target_b * (rest + e_t + (classes - 1) * one) * (slope_b * v_b)
    grad_t, grad_b = weight * grad_t / strength, weight * grad_b / strength
    kl = share * 0.0
    if KL:
        kl, slope, less, by_t, by_b = _kl_in_form(
            e_t, slope_t, target_t, e_b, slope_b, target_b, rest, excess, weighted, here, k, classes, G, Q, FORM
        )  # fmt: skip
        factor = tl.where(kl <= kl_clamp, kl_weight * weight, 0.0)
        grad_t, grad_b = grad_t + factor * by_t, grad_b + factor * by_b
        kl = tl.where(kl > kl_clamp, kl_clamp, kl)
        tl.store(values + 1, factor, mask=here)
        tl.store(values + 2, slope, mask=here)
        tl.store(values + 3, less / one, mask=here)
    _store_values(values, found, here, weight / strength, share, weight, total, grad_t, grad_b)
    tl.store(out, nll + kl_weight * kl, mask=here)
    tl.store(out + rows, nll, mask=here)
    tl.store(out + 2 * rows, kl, mask=here)
    softmax_own = tl.where(softmax_t > softmax_b, softmax_t, softmax_b)
    tl.store(out + 3 * rows, softmax_own / (others + softmax_t), mask=here)
