r"""KL(Dir(1 + e) ‖ Dir(1)) for evidence e ≥ 0, accurate in fp32 from e = 0 to e = exp(78).

Everything follows from one function, h_c(r) = r ψ(c + r) - lnΓ(c + r) + lnΓ(c), whose derivative is h_c'(r) = r ψ'(c + r):

    KL(Dir(1 + e) ‖ Dir(1)) = Σ_j h_1(e_j) - h_K(Σ_j e_j).

h_c(r) grows like r while the KL grows like log r: as written, confident logits leave nothing but rounding errors. The linear
parts cancel exactly, so computed here is the excess h_c(r) - r: recurrence up to c + n, Stirling's series there, the cancelling
r ln r taken out by hand, and every term vanishing with r, or a vocabulary of tiny evidences would add up rounding errors.

Only + - × ÷ and log1p: torch.compile fuses that on any device, which it cannot do with digamma and polygamma on a GPU.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from raw2s.losses.conventions import is_class

_STIRLING_FROM = {torch.float32: 4, torch.float64: 9}
_STIRLING_TERMS = {torch.float32: 5, torch.float64: 7}
_BERNOULLI = [1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6]
"""B_2, B_4, ..., B_14."""
_LGAMMA_SERIES = [b / (2 * k * (2 * k - 1)) for k, b in enumerate(_BERNOULLI, 1)]
_DIGAMMA_SERIES = [b / (2 * k) for k, b in enumerate(_BERNOULLI, 1)]


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
        if ctx.needs_input_grad[0]:
            slope, slope_less_1 = _slope(evidence, 1)
            total_slope, total_slope_less_1 = _slope(total, classes)
            ctx.save_for_backward(torch.where(evidence < 1, slope - total_slope, slope_less_1 - total_slope_less_1))
        return _excess(evidence, 1).sum(-1) - _excess(total, classes).squeeze(-1)

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
        residual = _sum_of_others(evidence, is_top)
        if ctx.needs_input_grad[0]:
            slope, slope_less_1 = _slope(evidence, 1)
            residual_slope, residual_slope_less_1 = _slope(residual, classes)
            others = _sum_of_others(target, is_top)
            grad_if_small = others * slope - _sum_of_others(target * residual_slope, is_top)
            grad_if_large = others * slope_less_1 - _sum_of_others(target * residual_slope_less_1, is_top)
            ctx.save_for_backward(torch.where(evidence < 1, grad_if_small, grad_if_large))
        excess = _excess(evidence, 1)
        return (target * (_sum_of_others(excess, is_top) - _excess(residual, classes))).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_kl: Tensor) -> tuple[Tensor, None]:
        grad: Tensor = ctx.saved_tensors[0]
        return grad * grad_kl.unsqueeze(-1), None


def _sum_of_others(x: Tensor, is_top: Tensor) -> Tensor:
    """Σ_{k≠j} x_k for every j. The largest evidence is left out of its own sum, not subtracted: it may hold nearly everything."""
    top = x.masked_fill(~is_top, 0.0).sum(-1, keepdim=True)
    rest = x.masked_fill(is_top, 0.0).sum(-1, keepdim=True)
    return torch.where(is_top, rest, top + (rest - x))


def _excess(r: Tensor, c: int) -> Tensor:
    """h_c(r) - r."""
    n = _shift(r, c)
    y = r + (c + n)
    value = (
        _lgamma_tail(y.new_full((), c + n)) - _lgamma_tail(y) - r * _digamma_tail(y) - (c + n - 0.5) * torch.log1p(r / (c + n))
    )
    for i in range(c, c + n):
        value += torch.log1p(r / i).sub_(r / (r + i))
    return value


def _slope(r: Tensor, c: int) -> tuple[Tensor, Tensor]:
    """(h_c'(r), h_c'(r) - 1): the first is accurate for small r, the second for large."""
    n = _shift(r, c)
    y = r + (c + n)
    common = r / y * _y_trigamma_tail(y)
    for i in range(c, c + n):
        above = r + i
        common += (r / above).div_(above)  # not r / above²: r reaches 1e34
    return common + r / y, common - (c + n) / y


def _shift(r: Tensor, c: int) -> int:
    """Recurrence steps that bring c + r to where Stirling's series holds."""
    return max(0, _STIRLING_FROM[r.dtype] - c)


def _digamma_tail(y: Tensor) -> Tensor:
    """ln y - ψ(y)."""
    inverse = 1 / y
    return inverse * (0.5 + inverse * _in_even_powers(_DIGAMMA_SERIES, inverse))


def _lgamma_tail(y: Tensor) -> Tensor:
    """lnΓ(y) - (y - ½) ln y + y - ½ ln 2π."""
    inverse = 1 / y
    return inverse * _in_even_powers(_LGAMMA_SERIES, inverse)


def _y_trigamma_tail(y: Tensor) -> Tensor:
    """y ψ'(y) - 1."""
    inverse = 1 / y
    return inverse * (0.5 + inverse * _in_even_powers(_BERNOULLI, inverse))


def _in_even_powers(coefficients: list[float], x: Tensor) -> Tensor:
    """coefficients[0] + coefficients[1] x² + coefficients[2] x⁴ + ..., by Horner's rule, to the terms the precision needs."""
    *lower, highest = coefficients[: _STIRLING_TERMS[x.dtype]]
    square = x * x
    value = torch.full_like(x, highest)
    for coefficient in reversed(lower):
        value.mul_(square).add_(coefficient)
    return value
