"""The fused heads on a GPU: milliseconds of forward and backward, memory beyond inputs and gradients, and the bars of both.

    python benchmarks/gpu_heads.py [--tiny] [--out FILE]      # with torch 2.8 or newer and Triton alone; --tiny on any CPU

N = H = 4096, bf16, V = 32,000 and 151,936. Parity first: losses and both gradients against float64. Then every variant is timed
between CUDA events, variants interleaved, the median taken. Extra MiB, the same for all: the peak of one forward and backward less
what stands before it, inputs and no gradients, and less the two gradients in the operands' type, which everybody must hand over.
Liger is measured if it can be imported. A variant that fails is recorded with its error, and the rest goes on.
"""

import argparse
import json
import math
import statistics
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_head_variants import Inputs, Loss, autograd_edl, contestants, eager_ce, fused, log_probs, set_to, step, tuning, within
from torch import Tensor

from raw2s.losses import linear_rows

GRADIENT_BAR = 3e-3
"""‖difference‖ / ‖exact‖: what bf16 leaves."""
SHAPES, TINY = ((4096, 4096, 32_000), (4096, 4096, 151_936)), ((48, 32, 500),)
REPEATS, TINY_REPEATS = 7, 2
TUNE_UNTIL_SECONDS = 55
Report = Callable[..., None]


def errors(exact: tuple[Tensor, ...], got: tuple[Tensor, ...]) -> dict[str, float]:
    """Of loss and gradients: ‖difference‖ / ‖exact‖, and the largest difference relative to the largest entry."""
    found = {}
    for name, x, y in zip(("loss", "hidden", "weight"), exact, got, strict=True):
        difference = y.double() - x
        found[name] = (difference.norm() / x.norm()).item()
        found[f"{name}, largest"] = (difference.abs().max() / x.abs().max()).item()
    return found


def grads(x: Inputs, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
    value = step(x, loss)
    assert x.hidden.grad is not None and x.weight.grad is not None
    return value.detach(), x.hidden.grad, x.weight.grad


def parity(x: Inputs, rows: int, report: Report) -> None:
    """Few rows of every head against float64 by the plain path, and the one-hot EDL head against autograd of its formula."""
    exact, few = x.exact(rows), x.first(rows)
    compact = fused(few, half_precision_weight_grad=True)
    ours, reference = fused(few), fused(exact)
    for name, loss in {**reference, "log-probs": partial(log_probs, exact)}.items():
        value = attempt(report, f"{name}, float64", lambda loss=loss: grads(exact, loss))
        if value is None:
            continue
        candidates = {"": ours.get(name, partial(log_probs, few))}
        if name in compact:
            candidates[", bf16 weight grad"] = within(
                partial(set_to, linear_rows, _COMPACT_ROWS=compact_rows(rows)), compact[name]
            )
        for suffix, candidate in candidates.items():
            found = attempt(report, f"{name}{suffix}", lambda c=candidate, v=value: errors(v, grads(few, c)))
            met = found is not None and max(found["hidden"], found["weight"]) <= GRADIENT_BAR
            report(parity=f"{name}{suffix}", rows=rows, **(found or {}), bar=GRADIENT_BAR, met=met)
        if name == "EDL":
            found = attempt(report, "autograd EDL", lambda v=value: errors(v, grads(exact, partial(autograd_edl, exact))))
            report(parity="autograd EDL in float64", rows=rows, **(found or {}))
        if name == "CE":
            found = attempt(report, "eager CE", lambda v=value: errors(v, grads(few, partial(eager_ce, few))))
            report(parity="eager CE", rows=rows, **(found or {}))


def compact_rows(rows: int) -> int:
    """Of a chunk with bf16 weight gradients, so that few rows take as many chunks as all rows of `SHAPES`."""
    return math.ceil(rows * linear_rows._COMPACT_ROWS / SHAPES[0][0])


def attempt(report: Report, name: str, action: Callable[[], Any]) -> Any:
    """The action's value; None where it failed, with the error reported."""
    try:
        return action()
    except Exception as error:
        report(failed=name, error=f"{type(error).__name__}: {error}"[:600], where=traceback.format_exc().splitlines()[-6:])
        return None


def milliseconds(x: Inputs, loss: Loss) -> float:
    if not x.hidden.is_cuda:
        start = time.perf_counter()
        step(x, loss)
        return 1e3 * (time.perf_counter() - start)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    begin.record()
    step(x, loss)
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end)


def extra_mib(x: Inputs, loss: Loss) -> float | None:
    """Peak beyond the inputs and beyond two gradients in the operands' type."""
    if not x.hidden.is_cuda:
        return None
    x.hidden.grad = x.weight.grad = None
    torch.cuda.synchronize()
    base = torch.cuda.memory_allocated() + x.hidden.nbytes + x.weight.nbytes
    torch.cuda.reset_peak_memory_stats()
    step(x, loss)
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - base) / 2**20


def measure(x: Inputs, variants: dict[str, Loss], repeats: int, report: Report) -> dict[str, dict[str, float]]:
    """Median and smallest milliseconds and extra MiB of every variant that runs; the first step of each warms up and is no time."""
    shape = (*x.hidden.shape, len(x.weight))
    memory = {}
    for name, loss in variants.items():
        if attempt(report, name, lambda loss=loss: step(x, loss).item()) is not None:
            memory[name] = attempt(report, name, lambda loss=loss: extra_mib(x, loss))
    times: dict[str, list[float]] = {name: [] for name in memory}
    for _ in range(repeats):
        for name, spent in times.items():
            spent.append(milliseconds(x, variants[name]))
    found = {
        name: {"ms": statistics.median(spent), "least_ms": min(spent), "extra_mib": memory[name]} for name, spent in times.items()
    }
    for name, figures in found.items():
        report(variant=name, shape=shape, **figures)
    x.hidden.grad = x.weight.grad = None
    return found


def bars(found: dict[str, dict[str, float]]) -> dict[str, dict[str, Any]]:
    """What issue and design claim, as ratios of medians and of memory."""
    ce, autograd = found.get("eager CE"), found.get("autograd EDL")
    fastest = min((figures["ms"] for name, figures in found.items() if name.startswith(("eager CE", "Liger CE"))), default=None)
    claims = [
        ("EDL / eager CE", "raw2s EDL", "ms", ce and ce["ms"], 1.08),
        ("EDL / eager CE, goal", "raw2s EDL", "ms", ce and ce["ms"], 1.0),
        ("EDL / autograd EDL", "raw2s EDL", "ms", autograd and autograd["ms"], 0.5),
        ("EDL soft + aux / eager CE", "raw2s EDL soft + aux", "ms", ce and ce["ms"], 1.2),
        ("CE / the faster of eager CE and Liger", "raw2s CE", "ms", fastest, 1.05),
        ("EDL, bf16 weight grad / eager CE, memory", "raw2s EDL, bf16 weight grad", "extra_mib", ce and ce["extra_mib"], 0.15),
        ("CE, bf16 weight grad / eager CE, memory", "raw2s CE, bf16 weight grad", "extra_mib", ce and ce["extra_mib"], 0.15),
    ]
    ratios = {
        name: (found[variant][figure] / base, bar)
        for name, variant, figure, base, bar in claims
        if base and variant in found and found[variant][figure] is not None
    }
    return {name: {"measured": round(value, 3), "bar": bar, "met": value <= bar} for name, (value, bar) in ratios.items()}


def run(out: Path | None = None, tiny: bool = False) -> dict[str, Any]:
    """Every line as it comes, to the terminal and, all of them, to `out`."""
    device = "cuda" if torch.cuda.is_available() and not tiny else "cpu"
    result: dict[str, Any] = {
        "card": torch.cuda.get_device_name() if device == "cuda" else "cpu", "torch": torch.__version__, "lines": [], "bars": {}
    }  # fmt: skip

    def report(**line: Any) -> None:
        print(json.dumps(line), flush=True)
        result["lines"].append(line)
        if out is not None:
            out.write_text(json.dumps(result, indent=1) + "\n")

    start = time.perf_counter()
    for shape in TINY if tiny else SHAPES:
        x = Inputs.make(*shape, device=device)
        attempt(report, "parity", partial(parity, x, shape[0] if tiny else 64, report))
        found = measure(x, contestants(x), TINY_REPEATS if tiny else REPEATS, report)
        result["bars"][str(shape)] = bars(found)
        report(bars=bars(found), shape=shape, seconds=round(time.perf_counter() - start, 1))
        if time.perf_counter() - start < TUNE_UNTIL_SECONDS:
            measure(x, tuning(x), 2 if tiny else 3, report)
        report(done=shape, seconds=round(time.perf_counter() - start, 1))
        del x
        if device == "cuda":
            torch.cuda.empty_cache()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a small shape on the CPU, to try the script")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    run(arguments.out, arguments.tiny)


if __name__ == "__main__":
    main()
