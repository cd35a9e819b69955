"""Ways to compute the fused cross entropy on a GPU, one beside the other: which steps cost what, and what each leaves of the gradient.

    python benchmarks/gpu.py head_ways [--tiny]

Errors of every head and of every way first, then times in turn, as in the part `heads`. A way that fails is written down.
"""

import json
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_head_variants import (
    Inputs,
    LigerFusedLinearCrossEntropyFunction,
    Loss,
    eager_ce,
    fused,
    liger_ce,
    log_probs,
    products,
    set_to,
    within,
)
from gpu_heads import SHAPES, TINY, TINY_REPEATS, Report, attempt, bars, compact_rows, errors, grads, measure, parity
from torch import Tensor

from raw2s.losses import linear_rows, scaling

REPEATS = 9
FACTOR = 1.003
"""Of a loss that is not the end of the graph: bf16 has no number between 1 and 1.0078."""
OURS = scaling._scaled


def scaled_by(function: Callable[[Tensor, Tensor], Tensor], loss: Loss) -> Loss:
    """The loss, whose backward pass is outside any context: so every way says who multiplies in it."""

    def run() -> Tensor:
        scaling._scaled = function
        return loss()

    return run


def hidden_grad_at_once() -> Any:
    """No copy of the hidden states' gradient in fp32."""
    return set_to(linear_rows, _put_product=lambda out, a, b, compact: torch.mm(a, b, out=out))


def hidden_grad_by_fp32() -> Any:
    return set_to(linear_rows, _put_product=lambda out, a, b, compact: out.copy_(linear_rows._product(a, b)))


def half_logits() -> Any:
    """Logits in the operands' type; for one-hot cross entropy only."""
    product = linear_rows._product

    def memory(hidden: Tensor, rows: int, vocabulary: int) -> Tensor:
        return hidden.new_empty(rows, math.ceil(vocabulary / 16) * 16)[:, :vocabulary]

    def into(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
        return product(a, b) if out is None else torch.mm(a, b, out=out)

    return set_to(linear_rows, _logits_memory=memory, _product=into)


def ways(x: Inputs) -> dict[str, tuple[str, float, Loss]]:
    """The head that each is a way of, a factor of its loss, and the way."""
    ce, bridge = fused(x)["CE"], fused(x, half_precision_weight_grad=True)["EDL soft + aux, bridge"]
    by_torch = partial(scaled_by, lambda grad, factor: grad.mul_(factor))
    found = {
        "CE": ("CE", 1.0, ce),
        "CE times 1.003": ("CE", FACTOR, lambda: ce() * FACTOR),
        "CE, hidden grad at once": ("CE", 1.0, within(hidden_grad_at_once, ce)),
        "CE, half logits": ("CE", 1.0, within(half_logits, ce)),
        "CE, half logits, hidden grad at once": ("CE", 1.0, within(half_logits, within(hidden_grad_at_once, ce))),
        "bridge, bf16 weight grad": ("EDL soft + aux, bridge", 1.0, bridge),
        "bridge, bf16 weight grad, hidden grad by fp32": ("EDL soft + aux, bridge", 1.0, within(hidden_grad_by_fp32, bridge)),
    }
    found = {name: (head, factor, scaled_by(OURS, loss)) for name, (head, factor, loss) in found.items()}
    return found | {
        "CE, scaled by torch": ("CE", 1.0, by_torch(ce)),
        "CE times 1.003, scaled by torch": ("CE", FACTOR, by_torch(lambda: ce() * FACTOR)),
    }


def errors_of_ways(x: Inputs, rows: int, report: Report) -> None:
    """Of few rows against float64."""
    exact, few = x.exact(rows), x.first(rows)
    reference = fused(exact)
    for name, (head, factor, way) in ways(few).items():
        with set_to(linear_rows, _COMPACT_ROWS=compact_rows(rows)):
            value = attempt(report, f"{head}, float64", lambda h=head, f=factor: grads(exact, lambda: reference[h]() * f))
            found = value and attempt(report, name, lambda w=way, v=value: errors(v, grads(few, w)))
        report(way=name, rows=rows, **(found or {}))


def hidden_grads_apart(x: Inputs, report: Report) -> None:
    """All rows: what the product without a copy in fp32 changes of the hidden states' gradient; 0 if cuBLAS sums in fp32."""
    for name, way in (
        ("CE", "CE, hidden grad at once"),
        ("bridge, bf16 weight grad, hidden grad by fp32", "bridge, bf16 weight grad"),
    ):
        one, other = (grads(x, ways(x)[key][2])[1].float() for key in (name, way))
        report(hidden_grads_apart=way, difference=((one - other).norm() / one.norm()).item())


def contestants(x: Inputs) -> dict[str, Loss]:
    """Named as in the part `heads`, for its bars."""
    variants: dict[str, Loss] = {"three products": partial(products, x), "eager CE": partial(eager_ce, x)}
    if LigerFusedLinearCrossEntropyFunction:
        variants["Liger CE"] = partial(liger_ce, x)
        variants["Liger CE, chunks 16 times as large"] = partial(liger_ce, x, 16)
    variants |= {f"raw2s {name}": loss for name, (_, _, loss) in ways(x).items()}
    compact = fused(x, half_precision_weight_grad=True)
    smaller = partial(set_to, linear_rows, _COMPACT_ROWS=1024)
    ours = {f"raw2s {name}": fused(x)[name] for name in ("CE soft + aux", "EDL", "EDL soft + aux")}
    ours |= {f"raw2s {name}, bf16 weight grad": compact[name] for name in ("CE", "EDL")}
    ours |= {f"raw2s {name}, bf16 weight grad, 1024 rows": within(smaller, compact[name]) for name in ("CE", "EDL")}
    ours["raw2s log-probs"] = partial(log_probs, x)
    return variants | {name: scaled_by(OURS, loss) for name, loss in ours.items()}


def run(out: Path, tiny: bool) -> dict[str, Any]:
    """Every line as it comes, to the terminal and, all of them, to `out`."""
    device = "cuda" if torch.cuda.is_available() and not tiny else "cpu"
    result: dict[str, Any] = {"lines": [], "bars": {}}

    def report(**line: Any) -> None:
        print(json.dumps(line), flush=True)
        result["lines"].append(line)
        out.write_text(json.dumps(result, indent=1) + "\n")

    start = time.perf_counter()
    for shape in TINY if tiny else SHAPES:
        x, rows = Inputs.make(*shape, device=device), 48 if tiny else 64
        attempt(report, "parity", partial(parity, x, rows, report))
        attempt(report, "errors of ways", partial(errors_of_ways, x, rows, report))
        attempt(report, "hidden grads apart", partial(hidden_grads_apart, x, report))
        found = measure(x, contestants(x), TINY_REPEATS if tiny else REPEATS, report)
        result["bars"][str(shape)] = bars(found)
        report(bars=bars(found), shape=shape, seconds=round(time.perf_counter() - start, 1))
        del x
        if device == "cuda":
            torch.cuda.empty_cache()
    scaling._scaled = OURS
    return result
