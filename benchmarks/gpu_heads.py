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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from raw2s.losses import heads, linear_cross_entropy, linear_edl_loss, linear_log_probs, linear_rows, row_passes

try:
    from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction
except ImportError:
    LigerFusedLinearCrossEntropyFunction = None

KL_WEIGHT, GAMMA = 1e-4, 0.2
GRADIENT_BAR = 3e-3
"""‖difference‖ / ‖exact‖: what bf16 leaves."""
SHAPES, TINY = ((4096, 4096, 32_000), (4096, 4096, 151_936)), ((48, 32, 500),)
REPEATS, TINY_REPEATS = 7, 2
CHUNK_MIB, LAUNCHES = (256, 512, 1024), ((1024, 4), (2048, 8), (4096, 8))
TUNE_UNTIL_SECONDS = 55
Loss = Callable[[], Tensor]
Report = Callable[..., None]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    hidden: Tensor
    weight: Tensor
    token: Tensor
    prob: Tensor

    @classmethod
    def make(cls, rows: int, width: int, vocabulary: int, device: str) -> "Inputs":
        """Logits of spread 3, as a language model's; bf16 on a GPU."""
        generator = torch.Generator(device).manual_seed(0)
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        hidden = torch.randn(rows, width, generator=generator, device=device)
        weight = torch.randn(vocabulary, width, generator=generator, device=device).mul_(3 * width**-0.5)
        return cls(
            hidden=hidden.to(dtype).requires_grad_(),
            weight=weight.to(dtype).requires_grad_(),
            token=torch.randint(vocabulary, (rows,), generator=generator, device=device),
            prob=torch.rand(rows, generator=generator, device=device),
        )

    def exact(self, rows: int) -> "Inputs":
        """Some rows and the whole weight in float64."""
        hidden, weight = (y.detach().double().requires_grad_() for y in (self.hidden[:rows], self.weight))
        return Inputs(hidden=hidden, weight=weight, token=self.token[:rows], prob=self.prob[:rows])

    def first(self, rows: int) -> "Inputs":
        hidden, weight = (y.detach().requires_grad_() for y in (self.hidden[:rows], self.weight))
        return Inputs(hidden=hidden, weight=weight, token=self.token[:rows], prob=self.prob[:rows])


def step(x: Inputs, loss: Loss) -> Tensor:
    """Forward and backward, from no gradients."""
    x.hidden.grad = x.weight.grad = None
    value = loss()
    value.backward()
    return value


def products(x: Inputs) -> Tensor:
    """The floor: logits and the two gradients' products from them."""
    with torch.no_grad():
        logits = x.hidden @ x.weight.T
        x.hidden.grad, x.weight.grad = logits @ x.weight, logits.T @ x.hidden
    return torch.zeros((), requires_grad=True)


def eager_ce(x: Inputs) -> Tensor:
    return F.cross_entropy(F.linear(x.hidden, x.weight).float(), x.token, reduction="sum")


def autograd_edl(x: Inputs) -> Tensor:
    """Eq. 3-4 for a one-hot target as one would write it, without the one-hot tensor."""
    logits = F.linear(x.hidden, x.weight)
    alpha, token = logits.float().exp() + 1 if logits.dtype != torch.float64 else logits.exp() + 1, x.token[:, None]
    nll = alpha.sum(-1).log() - alpha.gather(-1, token)[:, 0].log()
    others = alpha.scatter(-1, token, 1.0)
    total = others.sum(-1)
    kl = total.lgamma() - math.lgamma(alpha.shape[-1]) - others.lgamma().sum(-1)
    kl = kl + ((others - 1) * (others.digamma() - total.digamma()[:, None])).sum(-1)
    return (nll + KL_WEIGHT * kl).sum()


def liger_ce(x: Inputs, chunks: int = 1) -> Tensor:
    """Its own chunks, or so many times as large."""
    options = (None, None, -100, 0.0, 0.0, "sum", None, False, None, False, False, False, None, None, chunks)
    value: Tensor = LigerFusedLinearCrossEntropyFunction.apply(x.hidden, x.weight, x.token, *options)[0]
    return value


def fused(x: Inputs, **options: Any) -> dict[str, Loss]:
    """Our heads."""
    edl = partial(linear_edl_loss, x.hidden, x.weight, x.token, kl_weight=KL_WEIGHT, **options)
    return {
        "CE": lambda: linear_cross_entropy(x.hidden, x.weight, x.token, **options).loss,
        "CE soft + aux": lambda: linear_cross_entropy(x.hidden, x.weight, x.token, x.prob, gamma=GAMMA, **options).loss,
        "EDL": lambda: edl().loss,
        "EDL soft + aux": lambda: edl(x.prob, gamma=GAMMA).loss,
        "EDL soft + aux, bridge": lambda: edl(lambda p: p * x.prob, gamma=GAMMA).loss,
        "EDL form soft": lambda: edl(x.prob, gamma=GAMMA, form="soft").loss,
    }


def log_probs(x: Inputs) -> Tensor:
    return -linear_log_probs(x.hidden, x.weight, x.token)[0].sum()


@contextmanager
def set_to(module: Any, **values: Any) -> Iterator[None]:
    """A module's constants for a while."""
    before = {name: getattr(module, name) for name in values}
    for name, value in values.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


@contextmanager
def rows_in_torch() -> Iterator[None]:
    with set_to(heads, in_triton=lambda operand: False), set_to(row_passes, in_triton=lambda operand: False):
        yield


def within(context: Callable[[], Any], loss: Loss) -> Loss:
    def run() -> Tensor:
        with context():
            return loss()

    return run


def contestants(x: Inputs) -> dict[str, Loss]:
    """Everything that is timed together."""
    ours = fused(x)
    variants: dict[str, Loss] = {
        "three products": partial(products, x),
        "eager CE": partial(eager_ce, x),
        "autograd EDL": partial(autograd_edl, x),
    }
    if LigerFusedLinearCrossEntropyFunction:
        variants["Liger CE"] = partial(liger_ce, x)
        variants["Liger CE, chunks 16 times as large"] = partial(liger_ce, x, 16)
    variants |= {f"raw2s {name}": loss for name, loss in ours.items()}
    variants["raw2s log-probs"] = partial(log_probs, x)
    compact = fused(x, half_precision_weight_grad=True)
    variants |= {f"raw2s {name}, bf16 weight grad": compact[name] for name in ("CE", "EDL", "EDL soft + aux")}
    variants |= {f"raw2s {name}, rows in torch": within(rows_in_torch, ours[name]) for name in ("CE", "EDL", "EDL soft + aux")}
    return variants


def tuning(x: Inputs) -> dict[str, Loss]:
    """Sizes of chunks and of launches, for the one-hot EDL head."""
    edl = fused(x)["EDL"]
    variants = {
        f"EDL, chunks of {mib} MiB": within(partial(set_to, linear_rows, _chunk_bytes=lambda device, mib=mib: mib * 2**20), edl)
        for mib in CHUNK_MIB
    }
    if x.hidden.is_cuda:
        from raw2s.losses.cuda import launch  # noqa: PLC0415

        variants |= {
            f"EDL, blocks of {block}, {warps} warps": within(partial(set_to, launch, BLOCK=block, WARPS=warps), edl)
            for block, warps in LAUNCHES
        }
    compact = fused(x, half_precision_weight_grad=True)["EDL"]
    return variants | {
        f"EDL, bf16 weight grad, {rows} rows": within(partial(set_to, linear_rows, _COMPACT_ROWS=rows), compact)
        for rows in (512, 1024, 1366, 2048)
    }


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
                partial(set_to, linear_rows, _COMPACT_ROWS=max(1, rows // 3)), compact[name]
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
