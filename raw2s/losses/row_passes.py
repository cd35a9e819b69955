"""Which closed forms pass over the logits' rows: torch's, or Triton's for half-precision operands on CUDA.

The latter read the logits once or twice and write the gradient once, in the operands' type; they take torch's some thirty passes
as their reference. fp32 operands on CUDA keep torch's: whoever pays for fp32 products wants its last digits.
"""

from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec

from torch import Tensor

from raw2s.losses import cross_entropy_rows, edl_rows
from raw2s.losses.edl_rows import EDLSettings

RowPass = Callable[..., tuple[Tensor, ...]]
"""(logits, token, token_prob, row_weight, scratch, with_grad=...) -> figures per row."""


@cache
def has_triton() -> bool:
    """Whether Triton is installed."""
    return find_spec("triton") is not None


def in_triton(operand: Tensor) -> bool:
    """Whether an operand's row passes are Triton's."""
    return operand.is_cuda and operand.dtype.itemsize == 2 and has_triton()


def cross_entropy_pass(operand: Tensor, gamma: float = 0.0) -> RowPass:
    """`raw2s.losses.cross_entropy_rows` for operands of this type, on this device."""
    if in_triton(operand):
        from raw2s.losses.cuda.cross_entropy_rows import cross_entropy_rows as of_rows  # noqa: PLC0415

        return partial(of_rows, gamma=gamma, grad_dtype=operand.dtype)
    return partial(cross_entropy_rows.cross_entropy_rows, gamma=gamma)


def edl_pass(operand: Tensor, settings: EDLSettings) -> RowPass:
    """`raw2s.losses.edl_rows` for operands of this type, on this device."""
    if in_triton(operand):
        from raw2s.losses.cuda.edl_rows import edl_rows as of_rows  # noqa: PLC0415

        return partial(of_rows, settings=settings, grad_dtype=operand.dtype)
    return partial(edl_rows.edl_rows, settings=settings)
