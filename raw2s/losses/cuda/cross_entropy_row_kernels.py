"""Cross entropy's figures of a row in fp64, many rows a program: a kernel instead of some sixty launches.

The formulas are those of `raw2s.losses.cross_entropy_rows`, `row_terms` and `row_gradients`.
"""

from typing import Any

import triton
import triton.language as tl


@triton.jit
def _log_sigmoid(x: tl.tensor) -> Any:
    """min(x, 0) - log(1 + exp(-|x|)), with what rounding the sum lost."""
    small = tl.exp(-tl.abs(x))
    one = small + 1.0
    return tl.where(x > 0, 0.0, x) - (tl.log(one) + (small - (one - 1.0)) / one)


@triton.jit
def figures(
    found: tl.tensor, token_prob: tl.tensor, row_weight: tl.tensor, out: tl.tensor, values: tl.tensor, rows: tl.tensor,
    gamma: tl.tensor, ROWS: tl.constexpr,
) -> None:  # fmt: skip
    """out (2, n), fp64: loss, largest probability; values (n, 5), fp64: what `cross_entropy_kernels.gradient` takes.

    `found` is what `cross_entropy_kernels.sums` found. `token_prob` is None for a one-hot target, `row_weight` for weights of 1.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    here = row < rows
    found, values, out = found + row * 6, values + row * 5, out + row
    z_t, z_b = tl.load(found, mask=here, other=0.0), tl.load(found + 1, mask=here, other=0.0)
    reference = tl.load(found + 3, mask=here, other=0.0)
    offset = reference - z_b
    scale = tl.exp(offset)  # from the reference to the best
    others = tl.load(found + 4, mask=here, other=0.0)
    total = 1 + scale * others
    own_t, own_b = tl.where(z_t >= z_b, 1.0, 0.0).to(tl.float64), tl.where(z_t < z_b, 1.0, 0.0).to(tl.float64)
    prob, entropy = own_t * 0.0 + 1.0, own_t * 0.0
    if token_prob is not None:
        prob = tl.load(token_prob + row, mask=here, other=1.0).to(tl.float64)
        weighted = scale * (tl.load(found + 5, mask=here, other=0.0) + others * offset)
        entropy = tl.log(total) - weighted / total

    log_odds = z_t - z_b - tl.log(total)
    log_p, log_not_p = _log_sigmoid(log_odds), _log_sigmoid(-log_odds)
    p, not_p = tl.exp(log_p), tl.exp(log_not_p)
    loss = (gamma - 1) * (prob * log_p + (1 - prob) * (log_not_p - entropy))
    loss -= gamma * (own_t * log_p + own_b * (log_not_p - tl.log(total)))
    tl.store(out, loss, mask=here)
    tl.store(out + rows, own_t * p + own_b * not_p / total, mask=here)

    weight = own_t * 0.0 + 1.0
    if row_weight is not None:
        weight = tl.load(row_weight + row, mask=here, other=0.0).to(tl.float64)
    grad_t = ((1 - prob) * p - prob * not_p) * (1 - gamma) + gamma * (own_b * p - own_t * not_p)
    grad_others = gamma * own_b - grad_t
    tl.store(values, weight * grad_others / total * scale, mask=here)
    tl.store(values + 1, reference, mask=here)
    tl.store(values + 2, weight * grad_t, mask=here)
    tl.store(values + 3, weight * (grad_others / total - gamma * own_b), mask=here)
    tl.store(values + 4, tl.load(found + 2, mask=here, other=0.0), mask=here)
