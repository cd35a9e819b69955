"""What the fused heads cost against what people would write or install instead.

    python benchmarks/losses.py [32k] [128k] [soft] [teachers] [gpu] [--repeats 5] [--out benchmarks/results/losses.json]

One thread, process CPU time, variants interleaved in one process, parity asserted first; memory is the peak of one process per
variant beyond that of a process that only makes the inputs. Liger and TRL are measured if they can be imported (put
them on PYTHONPATH; they are no dependency). The GPU part writes losses_gpu.json beside the other results, where there is a GPU.
"""

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import harness
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import LinearCrossEntropyOptions

from raw2s.decoding import spread_word_scores
from raw2s.losses import linear_cross_entropy, linear_edl_loss, linear_log_probs, mix_targets, soft_label

try:
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss
except ImportError:
    LigerFusedLinearJSDLoss = None
try:
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction
except ImportError:
    ChunkedDivergenceFunction = None

KL_WEIGHT, GAMMA = 1e-4, 0.2
PARITY = 2e-5
SHAPES = {"32k": (1024, 256, 32_000), "128k": (512, 256, 128_000), "soft": (512, 256, 32_000), "teachers": (512, 256, 32_000)}
Loss = Callable[[], Tensor]


@dataclass
class Inputs:
    hidden: Tensor
    weight: Tensor
    token: Tensor
    prob: Tensor

    @classmethod
    def make(cls, rows: int, width: int, vocabulary: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> "Inputs":
        """Logits of spread 3, as a language model's."""
        generator = torch.Generator().manual_seed(0)
        hidden = torch.randn(rows, width, generator=generator)
        weight = torch.randn(vocabulary, width, generator=generator).mul_(3 * width**-0.5)
        return cls(
            hidden.to(device, dtype).requires_grad_(),
            weight.to(device, dtype).requires_grad_(),
            torch.randint(vocabulary, (rows,), generator=generator).to(device),
            torch.rand(rows, generator=generator).to(device),
        )

    def rows(self, count: int, dtype: torch.dtype = torch.float32) -> "Inputs":
        """The first rows, with the whole weight."""
        hidden, weight = (y.detach().to(dtype).requires_grad_() for y in (self.hidden[:count], self.weight))
        return Inputs(hidden, weight, self.token[:count], self.prob[:count])

    def grads(self, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
        self.hidden.grad = self.weight.grad = None
        value = loss()
        value.backward()
        assert self.hidden.grad is not None and self.weight.grad is not None
        return value.detach(), self.hidden.grad, self.weight.grad


def autograd_edl(x: Inputs) -> Tensor:
    """Eq. 3-4 for a one-hot target as one would write it, without the one-hot tensor."""
    logits = F.linear(x.hidden, x.weight)
    alpha, token = logits.exp() + 1, x.token[:, None]
    nll = alpha.sum(-1).log() - alpha.gather(-1, token)[:, 0].log()
    others = alpha.scatter(-1, token, 1.0)
    total = others.sum(-1)
    kl = total.lgamma() - math.lgamma(alpha.shape[-1]) - others.lgamma().sum(-1)
    kl = kl + ((others - 1) * (others.digamma() - total.digamma()[:, None])).sum(-1)
    return (nll + KL_WEIGHT * kl).sum()


def autograd_soft_label(x: Inputs) -> Tensor:
    logits = F.linear(x.hidden, x.weight)
    label = soft_label(logits.detach(), x.token, x.prob)
    own = F.cross_entropy(logits, logits.argmax(-1), reduction="sum")
    return (1 - GAMMA) * F.cross_entropy(logits, label, reduction="sum") + GAMMA * own


def heads(x: Inputs) -> dict[str, Loss]:
    """Every variant of the two shapes of the heads."""
    chunked = {
        f"torch linear_cross_entropy, {rows} rows": partial(
            F.linear_cross_entropy, x.hidden, x.weight, x.token,
            reduction="sum", options=LinearCrossEntropyOptions(batch_chunk_size=rows),
        )
        for rows in (128, 256, 512)
    }  # fmt: skip
    return {
        "eager CE": lambda: F.cross_entropy(F.linear(x.hidden, x.weight), x.token, reduction="sum"),
        **chunked,
        "raw2s CE": lambda: linear_cross_entropy(x.hidden, x.weight, x.token).loss,
        "autograd EDL": partial(autograd_edl, x),
        "raw2s EDL": lambda: linear_edl_loss(x.hidden, x.weight, x.token, kl_weight=KL_WEIGHT).loss,
        "raw2s EDL, soft label": lambda: (
            linear_edl_loss(x.hidden, x.weight, x.token, x.prob, kl_weight=KL_WEIGHT, gamma=GAMMA).loss
        ),
        "raw2s EDL, soft label, form soft": lambda: (
            linear_edl_loss(x.hidden, x.weight, x.token, x.prob, kl_weight=KL_WEIGHT, gamma=GAMMA, form="soft").loss
        ),
        "raw2s log-probabilities": lambda: -linear_log_probs(x.hidden, x.weight, x.token)[0].sum(),
    }


def soft_labels(x: Inputs) -> dict[str, Loss]:
    """Soft label and auxiliary term. The peers take a teacher of width 1, whose product with its weight costs next to nothing.

    Liger gets the student's own predictions as labels for its hard loss; TRL has no place for them and computes the KL alone.
    """
    own = F.linear(x.hidden, x.weight).argmax(-1)
    teacher = torch.randn(len(x.token), 1), torch.randn(len(x.weight), 1)
    variants: dict[str, Loss] = {
        "eager soft label": partial(autograd_soft_label, x),
        "raw2s soft label": lambda: linear_cross_entropy(x.hidden, x.weight, x.token, x.prob, gamma=GAMMA).loss,
    }
    variants |= {
        f"Liger JSD, {rows} rows": partial(liger, x, own, teacher, rows) for rows in (128, 256, 512) if LigerFusedLinearJSDLoss
    }
    if ChunkedDivergenceFunction:
        variants["TRL divergence"] = partial(trl, x, teacher)
    return variants


def liger(x: Inputs, own: Tensor, teacher: tuple[Tensor, Tensor], rows: int) -> Tensor:
    """Its mean made a sum by its weights: so it need not scale its gradients again."""
    loss = LigerFusedLinearJSDLoss(GAMMA * len(own), (1 - GAMMA) * len(own), beta=0.0, chunk_size=rows)
    value: Tensor = loss(x.hidden, x.weight, *teacher, own)
    return value


def trl(x: Inputs, teacher: tuple[Tensor, Tensor]) -> Tensor:
    value: Tensor = ChunkedDivergenceFunction.apply(x.hidden, x.weight, None, *teacher, None, 0.0)[0].sum()
    return value


def teachers(x: Inputs) -> dict[str, Loss]:
    """From N teachers' word scores of one sequence to the loss: bridge, mean, head. Every word has two pieces."""
    words = torch.arange(len(x.token)) // 2
    word_logprob = -2 * torch.rand(5, len(x.token) // 2 + 1, generator=torch.Generator().manual_seed(1))

    def bayesian(which: slice, edl: bool) -> Tensor:
        scores = word_logprob[which]

        def token_prob(confidence: Tensor) -> Tensor:
            spread = spread_word_scores(scores, words.expand(len(scores), -1), confidence.expand(len(scores), -1))
            return mix_targets(spread.exp().unsqueeze(-1), torch.ones(len(scores))).squeeze(-1)

        if edl:
            return linear_edl_loss(x.hidden, x.weight, x.token, token_prob, kl_weight=KL_WEIGHT, gamma=GAMMA).loss
        return linear_cross_entropy(x.hidden, x.weight, x.token, token_prob, gamma=GAMMA).loss

    def one_by_one(edl: bool) -> Tensor:
        return torch.stack([bayesian(slice(i, i + 1), edl) for i in range(5)]).mean()

    return {
        f"{name}, {label}": loss
        for name, edl in (("CE", False), ("EDL", True))
        for label, loss in {
            "1 teacher": partial(bayesian, slice(1), edl),
            "5 teachers": partial(bayesian, slice(5), edl),
            "5 teachers one by one": partial(one_by_one, edl),
        }.items()
    }


VARIANTS: dict[str, Callable[[Inputs], dict[str, Loss]]] = {
    "32k": heads, "128k": heads, "soft": soft_labels, "teachers": teachers,
}  # fmt: skip


def assert_parity(part: str, x: Inputs) -> dict[str, float]:
    """Worst differences, of loss and both gradients, relative to the largest entry; the bars of `PARITY`.

    The heads' in fp32 against float64, on as many rows as fit: autograd's Dirichlet KL cancels in fp32, its terms being as large
    as the evidence, so that ours against it would measure its error.
    """
    variants = VARIANTS[part](x)
    match part:
        case "32k" | "128k":
            few, exact = x.rows(64), x.rows(64, torch.float64)
            named, expected = heads(few), heads(exact)
            found = {
                f"{name} - {base} in float64": worst(exact.grads(expected[base]), few.grads(named[name]))
                for base, names in {
                    "eager CE": ["eager CE", "torch linear_cross_entropy, 256 rows", "raw2s CE", "raw2s log-probabilities"],
                    "autograd EDL": ["autograd EDL", "raw2s EDL"],
                }.items()
                for name in names
            }
        case "soft":
            found = {"raw2s - eager": worst(x.grads(variants["eager soft label"]), x.grads(variants["raw2s soft label"]))}
            # A teacher whose logits are the logarithm of our soft label: then the peers' KL has our gradient.
            logits, prob = F.linear(x.hidden, x.weight).detach(), x.prob.clamp(0.01, 0.99)
            teacher = torch.eye(len(prob)), soft_label(logits, x.token, prob).log().T.contiguous()
            peers: dict[str, tuple[float, Loss]] = {}
            if LigerFusedLinearJSDLoss:
                peers["Liger JSD"] = GAMMA, lambda: liger(x, logits.argmax(-1), teacher, 256)
            if ChunkedDivergenceFunction:
                peers["TRL divergence"] = 0.0, lambda: trl(x, teacher)
            for name, (gamma, peer) in peers.items():
                ours = partial(linear_cross_entropy, x.hidden, x.weight, x.token, prob, gamma=gamma)
                found[f"raw2s - {name}, gradients"] = worst(x.grads(peer)[1:], x.grads(lambda ours=ours: ours().loss)[1:])
        case _:
            found = {
                f"{kind}: one call - one by one": worst(
                    x.grads(variants[f"{kind}, 5 teachers one by one"]), x.grads(variants[f"{kind}, 5 teachers"])
                )
                for kind in ("CE", "EDL")
            }
    for name, value in found.items():
        assert value < (1e-3 if name.startswith("autograd") else PARITY), found
    return found


def worst(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> float:
    return max(((x - y).abs().max().double() / x.abs().max()).item() for x, y in zip(a, b, strict=True))


def measure(part: str, repeats: int) -> dict[str, Any]:
    """CPU seconds of forward and backward, and peak memory, of every variant of a part."""
    x = Inputs.make(*SHAPES[part])
    parity = assert_parity(part, x)
    variants = VARIANTS[part](x)
    result: dict[str, Any] = {"shape": dict(zip(("N", "H", "V"), SHAPES[part], strict=True)), "parity": parity}
    result["cpu_seconds"] = harness.timed({name: partial(x.grads, loss) for name, loss in variants.items()}, repeats)
    if part in ("32k", "128k"):
        base = peak_mib(part, "nothing")
        result["extra_mib"] = {name: round(peak_mib(part, name) - base) for name in variants}
    return result


def peak_mib(part: str, variant: str) -> float:
    """Measured in a process of its own."""
    run = subprocess.run([sys.executable, __file__, "--memory", part, variant], capture_output=True, text=True, check=True)
    return float(run.stdout)


def print_peak(part: str, variant: str) -> None:
    x = Inputs.make(*SHAPES[part])
    small = Inputs.make(2, 8, 16)
    small.grads(partial(autograd_edl, small))  # libraries load on first use
    if variant != "nothing":
        x.grads(VARIANTS[part](x)[variant])
    print(harness.peak_mib())


def ratios(part: str, result: dict[str, Any]) -> dict[str, dict[str, float | bool]]:
    """What is claimed, and what was measured of it; of minima."""
    cost = {name: value["min"] for name, value in result["cpu_seconds"].items()}
    memory = result.get("extra_mib", {})
    best = {
        kind: min((v for name, v in cost.items() if name.startswith(kind)), default=None) for kind in ("torch", "Liger", "TRL")
    }
    if part in ("32k", "128k"):
        faster, leaner = (3.5, 6.0) if part == "32k" else (2.8, 3.7)
        claims = {
            "autograd EDL / raw2s EDL, time": (cost["autograd EDL"] / cost["raw2s EDL"], faster, True),
            "autograd EDL / raw2s EDL, memory": (memory["autograd EDL"] / memory["raw2s EDL"], leaner, True),
            "raw2s EDL / eager CE, time": (cost["raw2s EDL"] / cost["eager CE"], 1.2, False),
            "raw2s EDL / raw2s CE, time": (cost["raw2s EDL"] / cost["raw2s CE"], 1.2, False),
            "raw2s EDL, soft label / eager CE, time": (cost["raw2s EDL, soft label"] / cost["eager CE"], 1.2, False),
            "eager CE / raw2s CE, time": (cost["eager CE"] / cost["raw2s CE"], 1.2, True),
            "best torch / raw2s CE, time": (best["torch"] / cost["raw2s CE"], 1.0, True),
        }
    elif part == "soft":
        ours = cost["raw2s soft label"]
        claims = {
            f"{kind} / raw2s soft label, time": (best[kind] / ours, bar, True)
            for kind, bar in (("Liger", 1.0), ("TRL", 3.0))
            if best[kind]
        }
        claims["eager / raw2s soft label, time"] = (cost["eager soft label"] / ours, 1.0, True)
    else:
        claims = {
            f"{kind}: 5 teachers / 1, time": (cost[f"{kind}, 5 teachers"] / cost[f"{kind}, 1 teacher"], 1.1, False)
            for kind in ("CE", "EDL")
        }
    return {
        name: {
            "measured": round(value, 3), "bar": bar, "at_least": at_least, "met": value >= bar if at_least else value <= bar,
        }
        for name, (value, bar, at_least) in claims.items()
    }  # fmt: skip


def on_gpu(repeats: int) -> dict[str, Any]:
    """bf16 heads of 4096 rows: milliseconds, peak MiB beyond the inputs, and errors of 64 rows against float64."""
    results: dict[str, Any] = {}
    for vocabulary in (32_000, 151_936):
        x = Inputs.make(4096, 4096, vocabulary, torch.bfloat16, "cuda")
        variants: dict[str, Loss] = {
            "raw2s CE": lambda x=x: linear_cross_entropy(x.hidden, x.weight, x.token).loss,
            "raw2s EDL": lambda x=x: linear_edl_loss(x.hidden, x.weight, x.token, kl_weight=KL_WEIGHT).loss,
            "raw2s EDL, soft label": lambda x=x: linear_edl_loss(x.hidden, x.weight, x.token, x.prob, kl_weight=KL_WEIGHT).loss,
            "autograd EDL": partial(autograd_edl, x),
        }
        figures: dict[str, Any] = {}
        for name, loss in variants.items():
            try:
                x.grads(loss)
                times, start, end = [], torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                base = torch.cuda.memory_allocated() - 2 * (x.hidden.numel() + x.weight.numel())
                torch.cuda.reset_peak_memory_stats()
                for _ in range(repeats):
                    start.record()
                    x.grads(loss)
                    end.record()
                    torch.cuda.synchronize()
                    times.append(start.elapsed_time(end))
                figures[name] = {"ms": min(times), "extra_mib": (torch.cuda.max_memory_allocated() - base) / 2**20}
            except torch.OutOfMemoryError:
                figures[name] = {"ms": None, "extra_mib": None, "note": "out of memory"}
                torch.cuda.empty_cache()
        few, exact = x.rows(64, torch.bfloat16), x.rows(64, torch.float64)
        grads = [
            y.grads(lambda y=y: linear_edl_loss(y.hidden, y.weight, y.token, kl_weight=KL_WEIGHT).loss) for y in (exact, few)
        ]
        figures["error against float64"] = worst(*grads)
        results[f"4096 x 4096 x {vocabulary}"] = figures
    return results


def main() -> None:
    parser = harness.parser(__doc__, "losses.json", parts=[*SHAPES, "gpu"], repeats=5)
    parser.add_argument(
        "--memory", nargs=2, metavar=("PART", "VARIANT"), help="print the peak memory in MiB of one run, and nothing else"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory:
        return print_peak(*arguments.memory)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    environment = harness.environment("torch", "numpy", "liger-kernel", "trl", gpu=gpu, threads=torch.get_num_threads())
    for part in arguments.parts or [*SHAPES, "gpu"]:
        if part != "gpu":
            result = measure(part, arguments.repeats)
            claims = ratios(part, result)
            harness.write_part(arguments.out, part, {"ratios": claims, **result}, environment)
            for name, ratio in claims.items():
                print(f"{part}: {name}: {ratio['measured']} (bar {ratio['bar']}, {'met' if ratio['met'] else 'NOT met'})")
        elif gpu is None:
            print("gpu: skipped, no CUDA device on this machine")
        else:
            harness.write_part(arguments.out.with_name("losses_gpu.json"), "heads", on_gpu(arguments.repeats), environment)


if __name__ == "__main__":
    main()
