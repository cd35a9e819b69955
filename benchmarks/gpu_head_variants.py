"""What the fused heads are measured against on a GPU, and the heads themselves in every way that is timed or compared."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from raw2s.losses import heads, linear_cross_entropy, linear_edl_loss, linear_log_probs, linear_rows, row_passes, scaling

try:
    from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction
except ImportError:
    LigerFusedLinearCrossEntropyFunction = None

KL_WEIGHT, GAMMA = 1e-4, 0.2
CHUNK_MIB, LAUNCHES = (256, 512, 1024), ((1024, 4), (2048, 8), (4096, 8))
Loss = Callable[[], Tensor]


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
    in_torch = {"in_triton": lambda operand: False}
    with set_to(heads, **in_torch), set_to(row_passes, **in_torch), set_to(scaling, **in_torch):
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
        for rows in (512, 1024, 1408, 2048)
    }
