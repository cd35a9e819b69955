r"""KL(Dir(1 + e) ‖ Dir(1)) for evidence e ≥ 0, accurate in fp32 from e = 0 to e = exp(78).

Everything follows from one function, h_c(r) = r ψ(c + r) - lnΓ(c + r) + lnΓ(c), whose derivative is h_c'(r) = r ψ'(c + r):

    KL(Dir(1 + e) ‖ Dir(1)) = Σ_j h_1(e_j) - h_K(Σ_j e_j).

h_c(r) grows like r while the KL grows like log r: as written, confident logits leave nothing but rounding errors. The linear
parts cancel exactly, so computed here is the excess h_c(r) - r. Totals (c = K) take recurrence up to c + n and Stirling's series
there, the cancelling r ln r taken out by hand; every term vanishes with r, or a vocabulary of tiny evidences would add up
rounding errors. Single evidences (c = 1), of which there are K, take polynomials in u = e/(1 + e), v = 1 - u:

    h_1(e) - e = u G(u) - ½ log(1 + e),    h_1'(e) = u (1 + v Q(u)),    1 - h_1'(e) = v (1 - u Q(u)),

with G and Q smooth and of order ½ on the whole of [0, 1]: interpolated once, on import, from the series in fp64.

Only + - × ÷ and log1p: torch.compile fuses that on any device, which it cannot do with digamma and polygamma on a GPU.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from numpy.polynomial import Chebyshev, Polynomial, chebyshev
from torch import Tensor
from torch.autograd.function import once_differentiable

from raw2s.losses.conventions import is_class

Scratch = Iterator[Tensor | None]
"""Memory for intermediate results, one after the other; None for fresh memory."""
FRESH: Scratch = itertools.repeat(None)
_STIRLING_FROM = {torch.float32: 4, torch.float64: 9}
_BERNOULLI = [1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6]
"""B_2, B_4, ..., B_14."""
_LGAMMA_SERIES = [b / (2 * k * (2 * k - 1)) for k, b in enumerate(_BERNOULLI, 1)]
_DIGAMMA_SERIES = [b / (2 * k) for k, b in enumerate(_BERNOULLI, 1)]
_DEGREE = {torch.float32: 8, torch.float64: 24}
"""Of G and Q; errors below 1.1e-8 and 1e-15."""


def dirichlet_kl(evidence: Tensor) -> Tensor:
    """KL(Dir(1 + evidence) ‖ Dir(1)), App. B: (..., K) -> (...), in nats.

    `evidence` is ≥ 0, fp32 or fp64, with a finite sum over K. Differentiable once.
    """
    kl: Tensor = _DirichletKL.apply(evidence)
    return kl


def expected_dirichlet_kl(evidence: Tensor, target: Tensor) -> Tensor:
    """Σ_k target_k · KL(Dir(1 + evidence with entry k set to 0) ‖ Dir(1)), Eq. 4 and App. B, in O(K): (..., K) twice -> (...).

    Linear in `target`, which is not differentiated. `evidence` as for `dirichlet_kl`.
    """
    kl: Tensor = _ExpectedDirichletKL.apply(evidence, target)
    return kl


class _DirichletKL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, evidence: Tensor) -> Tensor:
        total, classes = evidence.sum(-1, keepdim=True), evidence.shape[-1]
        excess, slope, slope_less_1 = _unit_terms(evidence)
        total_excess, total_slope, total_slope_less_1 = _terms(total, classes)
        ctx.save_for_backward(torch.where(evidence < 1, slope - total_slope, slope_less_1 - total_slope_less_1))
        return excess.sum(-1) - total_excess.squeeze(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_kl: Tensor) -> Tensor:
        grad: Tensor = ctx.saved_tensors[0]
        return grad * grad_kl.unsqueeze(-1)


class _ExpectedDirichletKL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, evidence: Tensor, target: Tensor) -> Tensor:
        classes = evidence.shape[-1]
        is_top = is_class(evidence.argmax(-1), classes)
        excess, slope, slope_less_1 = _unit_terms(evidence)
        residual_excess, residual_slope, residual_slope_less_1 = _terms(sum_of_others(evidence, is_top), classes)
        others = sum_of_others(target, is_top)
        grad_if_small = others * slope - sum_of_others(target * residual_slope, is_top)
        grad_if_large = others * slope_less_1 - sum_of_others(target * residual_slope_less_1, is_top)
        ctx.save_for_backward(torch.where(evidence < 1, grad_if_small, grad_if_large))
        return (target * (sum_of_others(excess, is_top) - residual_excess)).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_kl: Tensor) -> tuple[Tensor, None]:
        grad: Tensor = ctx.saved_tensors[0]
        return grad * grad_kl.unsqueeze(-1), None


def sum_of_others(x: Tensor, is_top: Tensor) -> Tensor:
    """Σ_{k≠j} x_k for every j. The largest evidence is left out of its own sum, not subtracted: it may hold nearly everything."""
    top = x.masked_fill(~is_top, 0.0).sum(-1, keepdim=True)
    rest = x.masked_fill(is_top, 0.0).sum(-1, keepdim=True)
    return torch.where(is_top, rest, top + (rest - x))


def _unit_terms(e: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(h_1(e) - e, h_1'(e), h_1'(e) - 1): of the slopes, the first is accurate for small e, the second for large."""
    v = 1 / (1 + e)
    u = e * v
    g, q = (in_powers(coefficients, u) for coefficients in unit_polynomials(e.dtype, e.device))
    return u * g - 0.5 * torch.log1p(e), u * (1 + v * q), v * (u * q - 1)


@functools.cache
def unit_polynomials(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Coefficients of G and of Q in powers of u, lowest first."""
    nodes = chebyshev.chebpts1(_DEGREE[dtype] + 1)
    u, v = torch.from_numpy((1 + nodes) / 2), torch.from_numpy((1 - nodes) / 2)
    excess, slope, slope_less_1 = _terms(u / v, 1)
    g = (excess - 0.5 * torch.log(v)) / u
    q = torch.where(u < 0.5, (slope / u - 1) / v, (1 + slope_less_1 / v) / u)
    in_2u_less_1 = (Chebyshev.fit(nodes, y.numpy(), len(nodes) - 1, domain=[-1, 1]) for y in (g, q))
    g_of_u, q_of_u = (y.convert(kind=Polynomial)(Polynomial([-1, 2])).coef for y in in_2u_less_1)
    return torch.tensor(g_of_u, dtype=dtype, device=device), torch.tensor(q_of_u, dtype=dtype, device=device)


def in_powers(coefficients: Tensor, x: Tensor, out: Tensor | None = None) -> Tensor:
    """coefficients[0] + coefficients[1] x + coefficients[2] x² + ..., by Horner's rule."""
    *lower, below_highest, highest = coefficients.unbind()
    value = torch.mul(x, highest, out=out).add_(below_highest)  # addcmul of two scalars would not be vectorized
    for coefficient in reversed(lower):
        torch.addcmul(coefficient, value, x, out=value)
    return value


def _terms(r: Tensor, c: int) -> tuple[Tensor, Tensor, Tensor]:
    """(h_c(r) - r, h_c'(r), h_c'(r) - 1), of the slopes the first accurate for small r, the second for large."""
    start = max(c, _STIRLING_FROM[r.dtype])
    excess, slope, slope_less_1 = stirling_terms(r, start)
    for i in range(c, start):
        above = r + i
        share = r / above
        excess += torch.log1p(r / i).sub_(share)
        part = share.div_(above)  # not r / above²: r reaches 1e34
        slope += part
        slope_less_1 += part
    return excess, slope, slope_less_1


def stirling_terms(r: Tensor, c: int, one: Tensor | float = 1.0, scratch: Scratch = FRESH) -> tuple[Tensor, Tensor, Tensor]:
    """`_terms` of r / one by Stirling's series, for c not below `_STIRLING_FROM`."""
    one = torch.as_tensor(one, dtype=r.dtype, device=r.device)
    at_0 = torch.full((), 1 / c, dtype=r.dtype, device=r.device)
    total = torch.add(r, c * one, out=next(scratch))
    inverse, share = torch.div(one, total, out=next(scratch)), torch.div(r, total, out=total)
    common = torch.mul(inverse, _even_powers(_BERNOULLI, inverse, c), out=next(scratch)).add_(0.5).mul_(inverse).mul_(share)
    excess = torch.mul(inverse, _even_powers(_DIGAMMA_SERIES, inverse, c), out=next(scratch)).add_(0.5).mul_(share)
    excess.addcmul_(inverse, _even_powers(_LGAMMA_SERIES, inverse, c))
    excess.add_(torch.div(r, c * one, out=next(scratch)).log1p_(), alpha=c - 0.5)
    excess = torch.sub(at_0 * _even_powers(_LGAMMA_SERIES, at_0, c), excess, out=excess)
    return excess, share.add_(common), common.sub_(inverse, alpha=c)


def _even_powers(series: list[float], x: Tensor, start: int) -> Tensor:
    """series[0] + series[1] x² + series[2] x⁴ + ..., by Horner's rule, to the terms that count for x ≤ 1/start."""
    first, *rest = series
    rest = [b for k, b in enumerate(rest, 1) if abs(b) > 0.1 * torch.finfo(x.dtype).eps * start ** (2 * k)]
    if not rest:
        return x.new_full((), first)
    square = x * x
    value = torch.full_like(x, rest[-1])
    for coefficient in reversed([first, *rest[:-1]]):
        value.mul_(square).add_(coefficient)
    return value
