"""Losses on hidden states: output embedding and loss fused, so that no (tokens, V) tensor ever stands for the batch.

All take hidden_NH, the hidden states at the target positions only, and the output embedding's weight_VH and bias_V as they are,
tied or not. Gradients flow to hidden states, weight and bias as from `torch.nn.functional.linear`; those of `linear_cross_entropy`
and `linear_edl_loss` are computed in the forward pass, so their backward pass neither reads nor holds the weight. It may run once,
or often with `retain_graph`; it is not differentiable itself.

Precision: logits, losses and sums in fp32 from half-precision operands, fp64 from fp64. With half-precision operands the
logits' gradient is rounded to theirs before its two products, as in any half-precision network, and so are the results.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from raw2s.losses import linear_rows
from raw2s.losses.dirichlet import FRESH, Scratch
from raw2s.losses.edl import EDLForm, Evidence
from raw2s.losses.edl_rows import MIN_CLASSES, EDLSettings
from raw2s.losses.linear_rows import Plan
from raw2s.losses.points import exp_of_shifted
from raw2s.losses.row_passes import RowPass, cross_entropy_pass, edl_pass, in_triton
from raw2s.losses.scaling import scaled

TokenProb = Tensor | Callable[[Tensor], Tensor]
"""P(s), the teachers' probability of every target piece (N,); or a function that gives it from the student's largest
probabilities (N,), as the bridge of Eq. 7-8 does."""


class _Target(NamedTuple):
    token_N: Tensor
    token_prob: TokenProb | None
    row_weight_N: Tensor | None


class HeadLoss(NamedTuple):
    """What a fused head gives; only `loss` is differentiable."""

    loss: Tensor
    """Σ_n row_weight_n loss_n, (), in nats."""
    nll_N: Tensor
    """Every row's loss without weight: cross entropy against the mixed target, or the NLL of Eq. 3."""
    kl_N: Tensor | None
    """Every row's KL before its weight; None where its weight is 0."""
    max_prob_N: Tensor
    """The student's largest probability at every position."""


def linear_cross_entropy(
    hidden_NH: Tensor,
    weight_VH: Tensor,
    token_N: Tensor,
    token_prob: TokenProb | None = None,
    *,
    bias_V: Tensor | None = None,
    row_weight_N: Tensor | None = None,
    gamma: float = 0.0,
    half_precision_weight_grad: bool = False,
) -> HeadLoss:
    """Σ_n w_n [(1 - γ) CE(y_n) + γ CE(own prediction)] (Eq. 1, 2; section 4.2): cross entropy, soft labels, auxiliary confidence.

    y_n is onehot(token_n), or with `token_prob` the `soft_label` of token_n and P(s_n). N teachers who labeled one sequence
    are one call: the mean of their P (`mix_targets`), and the sum of their weights as the row's.
    Where the logits of all rows fit one chunk, a function `token_prob` costs nothing; else it costs one more product with
    the weight. `half_precision_weight_grad`: for half-precision operands on CUDA, small chunks of rows and the weight's
    gradient summed over them in the operands' type: less memory, and one more rounding a chunk (1,408 rows).
    Raises ValueError for shapes that do not fit together.
    """
    hidden_NH, weight_VH = _operands(hidden_NH, weight_VH, bias_V, token_N, token_prob, row_weight_N)
    plan = Plan(token_prob is None, in_triton(hidden_NH), half_precision_weight_grad)
    rows = cross_entropy_pass(hidden_NH, gamma)
    target = _Target(token_N, token_prob, row_weight_N)
    loss, nll_N, max_prob_N = _fused(hidden_NH, weight_VH, bias_V, target, (rows, plan))
    return HeadLoss(loss, nll_N, None, max_prob_N)


def linear_edl_loss(
    hidden_NH: Tensor,
    weight_VH: Tensor,
    token_N: Tensor,
    token_prob: TokenProb | None = None,
    *,
    kl_weight: float,
    bias_V: Tensor | None = None,
    row_weight_N: Tensor | None = None,
    gamma: float = 0.0,
    evidence: Evidence = "exp",
    form: EDLForm = "expected",
    logit_clamp: float | None = None,
    kl_clamp: float | None = None,
    half_precision_weight_grad: bool = False,
) -> HeadLoss:
    """Σ_n w_n [NLL_n + kl_weight · KL_n] (Eq. 3-5, App. B) against the target (1 - γ) y_n + γ onehot(own prediction).

    y_n, teachers, `token_prob`, `half_precision_weight_grad` as in `linear_cross_entropy`; the rest as in `edl_loss`. For 16 classes at least.
    Raises ValueError for an unknown evidence or form and for shapes that do not fit together.
    """
    for name, value, known in (("evidence", evidence, get_args(Evidence)), ("form", form, get_args(EDLForm))):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(known)}")
    if len(weight_VH) < MIN_CLASSES:
        raise ValueError(f"{len(weight_VH)} classes are no vocabulary: use edl_loss on the logits for fewer than {MIN_CLASSES}")
    logit_limit, kl_limit = (torch.inf if clamp is None else clamp for clamp in (logit_clamp, kl_clamp))
    settings = EDLSettings(kl_weight, evidence, form, logit_limit, kl_limit, gamma)
    hidden_NH, weight_VH = _operands(hidden_NH, weight_VH, bias_V, token_N, token_prob, row_weight_N)
    plan = Plan(False, in_triton(hidden_NH), half_precision_weight_grad)
    rows = edl_pass(hidden_NH, settings)
    target = _Target(token_N, token_prob, row_weight_N)
    loss, _, nll_N, kl_N, max_prob_N = _fused(hidden_NH, weight_VH, bias_V, target, (rows, plan))
    return HeadLoss(loss, nll_N, kl_N if kl_weight else None, max_prob_N)


def linear_log_probs(
    hidden_NH: Tensor, weight_VH: Tensor, token_N: Tensor, *, bias_V: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """log p(token_n) in nats and the student's largest probability, both (N,), fp32 at least.

    The first is differentiable (its backward pass makes the logits again, a chunk at a time, unless they are few enough to be
    kept), the second is a constant.
    Raises ValueError for shapes that do not fit together.
    """
    hidden_NH, weight_VH = _operands(hidden_NH, weight_VH, bias_V, token_N)
    log_prob_N, max_prob_N = _LogProbs.apply(hidden_NH, weight_VH, bias_V, token_N, torch.is_grad_enabled())
    return log_prob_N, max_prob_N


class FusedHead(nn.Module):
    """Calls a function of this module with an output embedding's weight and bias: head(linear_edl_loss, hidden_NH, token_N, ...).

    A module, because DeepSpeed's ZeRO-3 gathers a partitioned weight around the forward and backward of the module that owns
    it, and a parent's forward that reads `embedding.weight` is too late or too early. It owns no weight of its own: give it a
    model's output embedding before the engine is made.
    """

    def __init__(self, embedding: nn.Module) -> None:
        super().__init__()
        self.weight = embedding.weight
        self.bias = getattr(embedding, "bias", None)

    def forward(self, function: Callable[..., Any], hidden_NH: Tensor, *args: Any, **options: Any) -> Any:
        return function(hidden_NH, self.weight, *args, bias_V=self.bias, **options)


def _fused(*args: Any) -> tuple[Tensor, ...]:
    """The weighted sum of the rows' losses, and every figure that the rows give, in the precision of the logits."""
    found: tuple[Tensor, ...] = _WeightedSum.apply(*args, torch.is_grad_enabled())
    return found


def _operands(hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, *per_row: Any) -> tuple[Tensor, Tensor]:
    """Hidden states and weight in one precision, once all shapes are known to fit."""
    shapes = [tuple(x.shape) for x in (hidden_NH, weight_VH)]
    if hidden_NH.dim() != 2 or weight_VH.dim() != 2 or shapes[0][1] != shapes[1][1]:
        raise ValueError(f"hidden states {shapes[0]} and weight {shapes[1]} do not fit: give (N, H) and (V, H)")
    if bias_V is not None and bias_V.shape != weight_VH.shape[:1]:
        raise ValueError(f"a bias of shape {tuple(bias_V.shape)} does not fit a weight of shape {shapes[1]}: give (V,)")
    for x in per_row:
        if isinstance(x, Tensor) and x.shape != hidden_NH.shape[:1]:
            raise ValueError(
                f"{tuple(x.shape)} does not fit hidden states {shapes[0]}: give one token, probability and weight per row"
            )
    dtype = torch.promote_types(hidden_NH.dtype, weight_VH.dtype)
    return hidden_NH.to(dtype), weight_VH.to(dtype)


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        target: _Target,
        way: tuple[RowPass, Plan],
        grad_enabled: bool,
    ) -> tuple[Tensor, ...]:
        token_N, token_prob, row_weight_N = target
        rows, plan = way
        with torch.autocast(hidden_NH.device.type, enabled=False):
            logits_NV = None
            if callable(token_prob):
                max_prob_N, logits_NV = _max_probs(hidden_NH, weight_VH, bias_V, plan)
                token_prob = token_prob(max_prob_N)
            wanted = tuple(grad_enabled and needed for needed in ctx.needs_input_grad[:3])

            def of_rows(logits_RV: Tensor, where: slice, scratch: Scratch) -> tuple[Tensor, ...]:
                part = [None if x is None else x[where] for x in (token_prob, row_weight_N)]
                return rows(logits_RV, token_N[where], *part, scratch, with_grad=any(wanted))

            figures, grads = linear_rows.run(hidden_NH, weight_VH, bias_V, of_rows, wanted=wanted, logits_NV=logits_NV, plan=plan)
        ctx.save_for_backward(*grads)
        weighted_N = figures[0] if row_weight_N is None else figures[0] * row_weight_N
        dtype = linear_rows.product_dtype(hidden_NH)
        figures = [figure.to(dtype) for figure in figures]
        ctx.mark_non_differentiable(*figures)
        return weighted_N.sum().to(dtype), *figures

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        return *scaled(ctx.saved_tensors, grad_loss), None, None, None


class _LogProbs(torch.autograd.Function):
    """What comes back for a row only scales that row's gradient: where the logits may be kept, they are as that gradient.

    Not so with Triton's passes: these take the logits as they are, and the row's factor into the one rounding of its gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, token_N: Tensor, grad_enabled: bool
    ) -> tuple[Tensor, Tensor]:
        keep = grad_enabled and linear_rows.may_be_kept(hidden_NH, weight_VH)
        of_logits = cross_entropy_pass(hidden_NH)

        def of_rows(logits_RV: Tensor, where: slice, scratch: Scratch) -> tuple[Tensor, ...]:
            return of_logits(logits_RV, token_N[where], None, None, scratch, with_grad=keep and not in_triton(hidden_NH))

        with torch.autocast(hidden_NH.device.type, enabled=False):
            logits_NV = linear_rows.all_logits(hidden_NH, weight_VH, bias_V) if keep else None
            (loss_N, max_prob_N), _ = linear_rows.run(
                hidden_NH, weight_VH, bias_V, of_rows, wanted=(False, False, False), logits_NV=logits_NV
            )
        ctx.save_for_backward(hidden_NH, weight_VH, bias_V, token_N, logits_NV)
        dtype = linear_rows.product_dtype(hidden_NH)
        max_prob_N = max_prob_N.to(dtype)
        ctx.mark_non_differentiable(max_prob_N)
        return -loss_N.to(dtype), max_prob_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        hidden_NH, weight_VH, bias_V, token_N, kept_NV = ctx.saved_tensors
        of_logits, narrow = cross_entropy_pass(hidden_NH), in_triton(hidden_NH)

        def from_logits(logits_RV: Tensor, where: slice, scratch: Scratch) -> tuple[Tensor, ...]:
            return of_logits(logits_RV, token_N[where], None, -grad_N[where], scratch, with_grad=True)

        def from_kept(row_grad_RV: Tensor, where: slice, scratch: Scratch) -> tuple[Tensor, ...]:
            row_grad_RV.mul_(-grad_N[where, None])
            return (grad_N[where],)

        if kept_NV is not None and torch._C._autograd._get_current_graph_task_keep_graph():
            kept_NV = kept_NV.clone()
        with torch.autocast(hidden_NH.device.type, enabled=False):
            _, grads = linear_rows.run(
                hidden_NH, weight_VH, bias_V, from_logits if narrow or kept_NV is None else from_kept,
                wanted=ctx.needs_input_grad[:3], logits_NV=kept_NV, plan=Plan(narrow=narrow),
            )  # fmt: skip
        return *grads, None, None


def _max_probs(hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, plan: Plan) -> tuple[Tensor, Tensor | None]:
    """The largest probabilities (N,), and the logits if they are but one chunk."""
    found = []
    operands = linear_rows.operands(hidden_NH, weight_VH)
    for chunk, logits_CV in linear_rows.chunks_of_logits(*operands, bias_V, compact=plan.compact):
        for _, block in linear_rows.blocks(logits_CV, chunk):
            if in_triton(hidden_NH):
                any_token = torch.zeros(len(block), dtype=torch.long, device=block.device)
                found.append(cross_entropy_pass(hidden_NH)(block, any_token, None, None, FRESH, with_grad=False)[1].float())
            else:
                shifted = block - block.amax(1, keepdim=True)
                found.append(exp_of_shifted(shifted, out=shifted).sum(1).reciprocal_())
    return torch.cat(found), logits_CV if chunk.start == 0 else None
