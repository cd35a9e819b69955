"""The row passes in Triton against torch's in float64: by Triton's interpreter on a CPU (`make triton`), or on a GPU (`-m gpu`)."""

import math
import os
from collections.abc import Callable
from itertools import product
from typing import get_args

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from raw2s.losses import heads, linear_cross_entropy, linear_edl_loss, linear_log_probs, linear_rows, row_passes, scaling
from raw2s.losses.cross_entropy_rows import cross_entropy_rows
from raw2s.losses.dirichlet import FRESH
from raw2s.losses.edl import EDLForm, Evidence
from raw2s.losses.edl_rows import EDLSettings, edl_rows

pytest.importorskip("triton", reason="Triton is not installed: make triton")
from raw2s.losses.cuda import launch
from raw2s.losses.cuda import scaling as scaling_in_triton
from raw2s.losses.cuda.cross_entropy_rows import cross_entropy_rows as cross_entropy_in_triton
from raw2s.losses.cuda.edl_rows import edl_rows as edl_in_triton

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
ERROR = 2e-5 if CUDA else 3e-6
"""A GPU's exp(z) is some |z| units off in its last place."""
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not CUDA and os.environ.get("TRITON_INTERPRET") != "1", reason="no GPU, and no interpreter: make triton"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # NumPy's, where exp overflows to infinity as it should
]
quick = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
CLAMPS = [(math.inf, math.inf, 0.3), (2.0, math.inf, 0.3), (math.inf, 20.0, 0.3), (math.inf, math.inf, 0.0)]
EDL = [
    EDLSettings(kl_weight, evidence, form, logit_clamp, kl_clamp, gamma)
    for evidence, form, (logit_clamp, kl_clamp, kl_weight), gamma in product(
        get_args(Evidence), get_args(EDLForm), CLAMPS, (0.0, 0.3)
    )
]
RowPass = Callable[..., tuple[Tensor, ...]]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks a row, the last one ragged."""
    monkeypatch.setattr(launch, "BLOCK", 32)
    monkeypatch.setattr(launch, "WARPS", 1)


def rows(seed: int, scale: float, classes: int, count: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, target pieces (of the first row the student's own), probabilities (0 and 1 among them), weights (0 among them)."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(count, classes, generator=generator)
    token = torch.randint(classes, (count,), generator=generator)
    token[0] = logits[0].argmax()
    prob, weight = torch.rand(2, count, generator=generator)
    prob[:2], weight[2] = torch.tensor([1.0, 0.0]), 0.0
    return logits.to(DEVICE), token.to(DEVICE), prob.to(DEVICE), weight.to(DEVICE)


def padded(logits: Tensor) -> Tensor:
    """The same in rows a multiple of 16 apart, with what must not be read between them."""
    width = math.ceil(logits.shape[1] / 16) * 16
    memory = logits.new_full((len(logits), width), math.nan)[:, : logits.shape[1]]
    return memory.copy_(logits)


def compare(in_triton: RowPass, in_torch: RowPass, logits: Tensor, arguments: tuple[Tensor | None, ...], error: float) -> None:
    """Figures and gradients within `error` of float64's; a gradient relative to its row's largest entry or to 1/30, the greater."""
    exact_grad = logits.double()
    expected = in_torch(
        exact_grad, *(x.double() if x is not None and x.is_floating_point() else x for x in arguments), FRESH, with_grad=True
    )
    grad = padded(logits)
    got = in_triton(grad, *arguments, FRESH, with_grad=True, grad_dtype=torch.float32)
    for value, exact in zip(got, expected, strict=True):
        torch.testing.assert_close(value, exact, rtol=error, atol=error)
    largest = exact_grad.abs().amax(1).clamp(min=1 / 30)
    assert ((grad - exact_grad).abs().amax(1) <= error * largest).all()


@pytest.mark.parametrize("of_rows", EDL, ids=lambda s: "-".join(map(str, s)))
@pytest.mark.parametrize("soft", [False, True], ids=["one-hot", "soft"])
def test_edl_rows(of_rows: EDLSettings, soft: bool) -> None:
    for seed, (scale, classes) in enumerate(((0.1, 33), (8.0, 70))):
        logits, token, prob, weight = rows(seed, scale, classes)
        in_triton, in_torch = (lambda *a, f=f, **o: f(*a, settings=of_rows, **o) for f in (edl_in_triton, edl_rows))
        compare(in_triton, in_torch, logits, (token, prob if soft else None, weight), ERROR)


@pytest.mark.parametrize("gamma, soft", product((0.0, 0.3), (False, True)))
def test_cross_entropy_rows(gamma: float, soft: bool) -> None:
    for seed, (scale, classes) in enumerate(((0.1, 33), (3.0, 70), (12.0, 50), (60.0, 20))):
        logits, token, prob, weight = rows(seed, scale, classes)
        in_triton, in_torch = (
            lambda *a, f=f, **o: f(*a, gamma=gamma, **o) for f in (cross_entropy_in_triton, cross_entropy_rows)
        )
        compare(in_triton, in_torch, logits, (token, prob if soft else None, weight), ERROR)


@pytest.mark.parametrize("of_rows", [s for s in EDL if s.evidence == "exp" and s.gamma], ids=lambda s: "-".join(map(str, s)))
@pytest.mark.parametrize("where", [[0], [0, 1], [1, 2]], ids=str)
def test_logits_beyond_sixty(of_rows: EDLSettings, where: list[int]) -> None:
    """Of the target (piece 0), of the best, of both, of two that are no target.

    No P of 0: there form `soft` multiplies exp(85) with 1 - t for a t of 1 less rounding, and float64 has no digits either.
    """
    logits, token, prob, weight = rows(5, 2.0, 40)
    token[:], prob[1] = 0, 0.4
    logits[:, where] = torch.tensor([85.0, 79.0, 78.0], device=DEVICE)[: len(where)]
    in_triton, in_torch = (lambda *a, f=f, **o: f(*a, settings=of_rows, **o) for f in (edl_in_triton, edl_rows))
    for target_prob in (None, prob):
        compare(in_triton, in_torch, logits, (token, target_prob, weight), 10 * ERROR)


@quick
@given(st.integers(0, 10_000), st.integers(16, 100), st.floats(0.01, 20.0), st.floats(-40.0, 40.0), st.sampled_from(EDL))
def test_any_rows(seed: int, classes: int, scale: float, offset: float, of_rows: EDLSettings) -> None:
    logits, token, prob, weight = rows(seed, scale, classes, count=3)
    logits = (logits + offset).clamp(-80, 80)
    for in_triton, in_torch, options in (
        (edl_in_triton, edl_rows, {"settings": of_rows}),
        (cross_entropy_in_triton, cross_entropy_rows, {"gamma": of_rows.gamma}),
    ):
        both = (lambda *a, f=f, options=options, **o: f(*a, **options, **o) for f in (in_triton, in_torch))
        compare(*both, logits, (token, prob if seed % 2 else None, weight), 10 * ERROR)


def test_a_real_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums over 152k pieces: the errors of float32 do not add up."""
    monkeypatch.setattr(launch, "BLOCK", 2048)
    logits, token, prob, weight = rows(6, 2.0, 151_936, count=3)
    logits[1] -= 12.0
    for form, target_prob in product(get_args(EDLForm), (None, prob[:3])):
        of_rows = EDLSettings(1e-2, "exp", form, math.inf, math.inf, 0.2)
        in_triton, in_torch = (lambda *a, f=f, of=of_rows, **o: f(*a, settings=of, **o) for f in (edl_in_triton, edl_rows))
        compare(in_triton, in_torch, logits, (token, target_prob, weight), ERROR)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_narrow_gradient_is_the_wide_one_rounded(dtype: torch.dtype) -> None:
    """And stands in the first part of every row's memory."""
    logits, token, _, weight = rows(7, 3.0, 70)
    of_rows = EDLSettings(0.1, "exp", "expected", math.inf, math.inf, 0.2)
    wide, narrow = padded(logits), padded(logits)
    edl_in_triton(wide, token, None, weight, FRESH, settings=of_rows, with_grad=True, grad_dtype=torch.float32)
    edl_in_triton(narrow, token, None, weight, FRESH, settings=of_rows, with_grad=True, grad_dtype=dtype)
    truncation = 2**-7 if dtype == torch.bfloat16 and not CUDA else 0.0  # the interpreter truncates to bfloat16
    torch.testing.assert_close(linear_rows.gradient_memory(narrow, dtype), wide.to(dtype), rtol=truncation, atol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_no_number_is_not_hidden(bad: float) -> None:
    for place in (3, 39):
        logits, token, _, _ = rows(8, 1.0, 40)
        token[:] = 5
        logits[1, place] = bad
        of_rows = EDLSettings(0.1, "exp", "expected", math.inf, math.inf, 0.0)
        loss = edl_in_triton(logits, token, None, None, FRESH, settings=of_rows, with_grad=False, grad_dtype=torch.float32)[0]
        entropy = cross_entropy_in_triton(logits, token, None, None, FRESH, with_grad=False, grad_dtype=torch.float32)[0]
        assert loss.isfinite().tolist() == entropy.isfinite().tolist() == [True, False, True, True]


def test_logits_are_left_alone_without_a_gradient() -> None:
    logits, token, prob, _ = rows(9, 3.0, 40)
    before = logits.clone()
    of_rows = EDLSettings(0.1, "exp", "expected", math.inf, math.inf, 0.2)
    edl_in_triton(logits, token, prob, None, FRESH, settings=of_rows, with_grad=False, grad_dtype=torch.bfloat16)
    cross_entropy_in_triton(logits, token, prob, None, FRESH, with_grad=False, grad_dtype=torch.bfloat16)
    torch.testing.assert_close(logits, before, rtol=0, atol=0)


@pytest.mark.parametrize("programs", [1, 3, 100])
def test_scale(programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounded once, by a factor that is not rounded to bfloat16 first: 1.003 would be 1. One of 1 changes no bit."""
    monkeypatch.setattr(scaling_in_triton, "PROGRAMS", programs)
    monkeypatch.setattr(scaling_in_triton, "BLOCK", 64)
    x = torch.randn(7, 41, generator=torch.Generator().manual_seed(0)).to(DEVICE, HALF)
    x[0, 0] = math.nan
    before = x.clone()
    assert scaling_in_triton.scale(x, torch.tensor(1.0, device=DEVICE)) is x
    torch.testing.assert_close(x, before, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(
        scaling_in_triton.scale(x, torch.tensor(1.003, device=DEVICE)), (before.float() * 1.003).to(HALF), rtol=0, atol=0, equal_nan=True
    )  # fmt: skip


@pytest.fixture(params=["whole", "chunks"])
def on_kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half-precision heads, on a CPU with its kernels interpreted and its products by way of fp32, in one chunk or in three."""
    if not CUDA:
        for module in (heads, row_passes, scaling):
            monkeypatch.setattr(module, "in_triton", lambda operand: operand.dtype.itemsize == 2)
        monkeypatch.setattr(linear_rows, "operands", lambda *both: both)
        monkeypatch.setattr(linear_rows, "_product", _product)
        monkeypatch.setattr(linear_rows, "_add_product", _add_product)
        monkeypatch.setattr(
            linear_rows, "_logits_memory", lambda h, n, v: padded(h.new_zeros(n, v, dtype=linear_rows.product_dtype(h)))
        )
    if request.param == "chunks":
        monkeypatch.setattr(linear_rows, "_MIN_CHUNK_ROWS", 3)
        monkeypatch.setattr(linear_rows, "_chunk_bytes", lambda device: 1)
        monkeypatch.setattr(linear_rows, "_KEPT_BYTES", {DEVICE: 1})


def _product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    return torch.mm(a.float(), b.float(), out=out) if a.dtype.itemsize == 2 else torch.mm(a, b, out=out)


def _add_product(total: Tensor | None, a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    product = torch.mm(a.float(), b.float())
    return product.to(dtype) if total is None else (total + product).to(dtype)


HALF, ROUNDING = (torch.bfloat16, 2**-8) if CUDA else (torch.float16, 2**-11)


def half_head(seed: int) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    operands = [torch.randn(shape, generator=generator).to(DEVICE, HALF) for shape in ((7, 8), (41, 8), (41,))]
    _, token, prob, weight = rows(seed, 1.0, 41, count=7)
    return operands, token, prob, weight


HEADS: dict[str, Callable[..., Tensor]] = {
    "ce": lambda h, w, b, token, prob, weight, **o: (
        linear_cross_entropy(h, w, token, None, bias_V=b, row_weight_N=weight, gamma=0.2, **o).loss
    ),
    "soft": lambda h, w, b, token, prob, weight, **o: (
        linear_cross_entropy(h, w, token, prob, bias_V=b, row_weight_N=weight, gamma=0.2, **o).loss
    ),
    "edl": lambda h, w, b, token, prob, weight, **o: (
        linear_edl_loss(h, w, token, None, kl_weight=0.01, bias_V=b, row_weight_N=weight, gamma=0.2, **o).loss
    ),
    "bridge": lambda h, w, b, token, prob, weight, **o: (
        linear_edl_loss(h, w, token, lambda p: p * prob, kl_weight=0.01, bias_V=b, row_weight_N=weight, **o).loss
    ),
    "log-probs": lambda h, w, b, token, prob, weight: (linear_log_probs(h, w, token, bias_V=b)[0] * weight).sum(),
}


@pytest.mark.parametrize("name, compact", [*product(HEADS, [False]), ("ce", True), ("edl", True), ("bridge", True)])
def test_heads(name: str, compact: bool, on_kernels: None) -> None:
    """Against float64 from the same operands. Two roundings: the logits' gradient's before its products, and the result's; where

    it is compact one more.
    """
    operands, token, prob, weight = half_head(1)
    exact = [x.double().requires_grad_() for x in operands]
    half = [x.requires_grad_() for x in operands]
    options = {"half_precision_weight_grad": True} if compact else {}
    loss, exact_loss = HEADS[name](*half, token, prob, weight, **options), HEADS[name](*exact, token, prob, weight)
    torch.testing.assert_close(loss.double(), exact_loss, rtol=1e-5, atol=1e-5)
    for retain in (True, False):
        grads = torch.autograd.grad(loss, half, retain_graph=retain)
        exact_grads = torch.autograd.grad(exact_loss, exact, retain_graph=True)
        for grad, reference in zip(grads, exact_grads, strict=True):
            assert grad.dtype == HALF
            assert (grad - reference).abs().max() <= (3 if compact else 2) * ROUNDING * reference.abs().max()


def test_no_rows(on_kernels: None) -> None:
    (hidden, weight, _), token, _, _ = half_head(2)
    hidden, weight = hidden.requires_grad_(), weight.requires_grad_()
    for loss in (
        linear_edl_loss(hidden[:0], weight, token[:0], kl_weight=0.1).loss,
        linear_log_probs(hidden[:0], weight, token[:0])[0].sum(),
    ):
        weight_grad = torch.autograd.grad(loss, weight)[0]
        assert loss == 0 and not weight_grad.any()
