"""`raw2s.losses.edl_rows` by passes in Triton: one over the logits for a row's sums, one that writes its gradient.

Where the target has mass on all entries, a third stands between them: that mass follows the softmax, whose sum the first gives.
What there is one or two of in a row is in fp64, many rows at a time.
"""

from functools import cache

import torch
from torch import Tensor

from raw2s.losses.cuda import edl_kernels as kernels
from raw2s.losses.cuda import edl_row_kernels as row_kernels
from raw2s.losses.cuda.launch import finite, launch, launch_rows
from raw2s.losses.dirichlet import Scratch, unit_polynomials
from raw2s.losses.edl_rows import EDLSettings
from raw2s.losses.linear_rows import gradient_memory


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
    rows, vocabulary = logits.shape
    token = token.contiguous()
    token_prob, row_weight = (None if x is None else x.contiguous() for x in (token_prob, row_weight))
    limit, (g, q) = finite(settings.logit_clamp), coefficients()
    clamped = settings.evidence == "exp" and limit > 0
    apart = clamped or settings.evidence != "exp"
    entries = {"EVIDENCE": settings.evidence, "CLAMPED": clamped}
    terms = {**entries, "KL": settings.kl_weight != 0}
    found, values, figures = (logits.new_empty(shape, dtype=torch.float64) for shape in ((rows, 8), (rows, 10), (4, rows)))
    launch(kernels.sums, logits, token, found, limit, G=g, APART=apart, **terms)
    weighted = None
    if token_prob is not None:
        shares, weighted = (logits.new_empty((rows, n), dtype=torch.float64) for n in (2, 4))
        launch_rows(row_kernels.shares, found, token_prob, shares, rows, settings.gamma, limit, APART=apart, **entries)
        launch(kernels.target_sums, logits, token, found, shares, weighted, limit, G=g, FORM=settings.form, **terms)
    kl_clamp = min(settings.kl_clamp, torch.finfo(torch.float32).max)
    launch_rows(
        row_kernels.figures, found, token_prob, row_weight, weighted, figures, values, rows, vocabulary,
        settings.gamma, settings.kl_weight, kl_clamp, limit, G=g, Q=q, FORM=settings.form, APART=apart, **terms,
    )  # fmt: skip
    if with_grad:
        grad = gradient_memory(logits, grad_dtype)
        launch(
            kernels.gradient, logits, token, found, values, grad, grad.stride(0), limit,
            Q=q, SOFT=token_prob is not None, FORM=settings.form, **terms,
        )  # fmt: skip
    return tuple(figures.unbind())  # type: ignore[return-value]


@cache
def coefficients() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of G and Q, lowest first."""
    g, q = unit_polynomials(torch.float32, torch.device("cpu"))
    return tuple(g.tolist()), tuple(q.tolist())
