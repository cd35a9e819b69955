"""Where the time of a beam step goes: the step by itself, its kernels, and its attention. Part of `benchmarks/gpu_beams.py`."""

from collections.abc import Callable
from typing import Any

import torch
from gpu_timing import repeated, seconds, wait
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from raw2s.decoding import static_search as static

TILES = [(8_192, 4, 3), (8_192, 4, 2), (16_384, 4, 2), (8_192, 2, 3), (4_096, 4, 4), (8_192, 8, 3)]
"""Bytes of keys read at once, warps, and stages: the first is the one in use."""


def steps(model: PreTrainedModel, launched: Callable[[int], Any], new_tokens: int) -> dict[str, Any]:
    """Milliseconds of a step by itself, of the prompts' forward pass, and what reading weights and cache once would take.

    `model` has just searched by graph; `launched(n)` searches n tokens far without one.
    """
    step = static._KEPT[model]
    prompt_pass, whole = seconds(lambda: launched(1), 3), seconds(lambda: launched(new_tokens), 2)
    cache = sum(layer.keys.nbytes + layer.values.nbytes for layer in step.cache.layers)
    weights = sum(parameter.nbytes for parameter in model.parameters())

    return {
        "replayed_ms": step_ms(model),
        "launched_ms": (whole - prompt_pass) / (new_tokens - 1) * 1e3,
        "prompts_ms": prompt_pass * 1e3,
        "floor_ms_at_4.3_TB_per_s": (cache + weights) / 4.3e9,
        "cache_bytes": cache,
    }


def step_ms(model: PreTrainedModel) -> float:
    """Milliseconds of a step of the graph that `model` has searched by last."""
    step = static._KEPT[model]

    def few() -> None:
        step.beams.step.fill_(1)
        for _ in range(5):
            step.run(model)

    return seconds(few, 5) / 5 * 1e3


def kernels(model: PreTrainedModel) -> dict[str, Any]:
    """Where a step's time goes: microseconds and calls of its longest kernels. `model` has just searched by graph."""
    step = static._KEPT[model]
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds if torch.cuda.is_available() else kinds[:1]) as profile:
        step.beams.step.fill_(1)
        step.run(model)
        wait()
    spent = [(event.key[:70], event.self_device_time_total, event.count) for event in profile.key_averages()]
    spent.sort(key=lambda row: -row[1])
    return {"kernels": spent[:16], "us": sum(row[1] for row in spent), "calls": sum(row[2] for row in spent if row[1])}


def attention(query_shape: tuple[int, int, int, int], columns: int, device: torch.device) -> dict[str, Any]:
    """Microseconds of a step's attention in one layer, by kernel: the choice is torch's unless one is named."""
    prompts, heads, beams, size = query_shape
    shape = (prompts, heads, columns, size)
    keys, values = (torch.randn(shape, device=device, dtype=torch.bfloat16) for _ in range(2))
    query = torch.randn(query_shape, device=device, dtype=torch.bfloat16)
    bias = torch.zeros(prompts, 1, beams, columns, device=device, dtype=torch.bfloat16)
    bias[..., columns * 7 // 8 :] = float("-inf")

    def attend() -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(query, keys, values, attn_mask=bias)

    def products() -> Tensor:
        weight = (query @ keys.mT * size**-0.5 + bias).softmax(dim=-1, dtype=torch.float32).to(query.dtype)
        return weight @ values

    found: dict[str, Any] = {"floor_us_at_4.3_TB_per_s": 2 * keys.nbytes / 4.3e6}
    reference = products().float()
    for backend in (None, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH, "products"):
        name = getattr(backend, "name", backend or "default")
        try:
            if isinstance(backend, SDPBackend):
                with sdpa_kernel(backend):
                    spent, got = repeated(attend), attend()
            else:
                work = products if backend else attend
                spent, got = repeated(work), work()
            found[name] = {"us": spent * 1e6, "error": float((got.float() - reference).norm() / reference.norm())}
        except Exception as error:
            found[name] = {"failed": str(error)[:200]}
    return found | {
        "triton": {
            f"{block}_{warps}_{ahead}": in_triton(query, keys, values, bias, (block, warps, ahead), reference)
            for block, warps, ahead in TILES
        }
    }


def in_triton(
    query: Tensor, keys: Tensor, values: Tensor, bias: Tensor, tile: tuple[int, int, int], reference: Tensor
) -> dict[str, Any]:
    """Our kernel with tiles of so many bytes, warps and stages; its columns end where the mask's do."""
    try:
        from raw2s.decoding.cuda import steps as launcher  # Triton may be missing  # noqa: PLC0415

        before = launcher.BLOCK_BYTES, launcher.WARPS, launcher.STAGES
        launcher.BLOCK_BYTES, launcher.WARPS, launcher.STAGES = tile
        try:
            work = lambda: launcher.attend(query, keys, values, bias, query.shape[3] ** -0.5)  # noqa: E731
            spent, got = repeated(work), work().transpose(1, 2)
        finally:
            launcher.BLOCK_BYTES, launcher.WARPS, launcher.STAGES = before
        return {"us": spent * 1e6, "error": float((got.float() - reference).norm() / reference.norm())}
    except Exception as error:
        return {"failed": str(error)[-200:]}
