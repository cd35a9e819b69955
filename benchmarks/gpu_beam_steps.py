"""Where the time of a beam step goes: the step by itself, its kernels, and its attention. Part of `benchmarks/gpu_beams.py`."""

from collections.abc import Callable
from typing import Any

import torch
from gpu_timing import repeated, seconds, wait
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from raw2s.decoding import static_search as static


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


def by_attention(model: PreTrainedModel, search: Callable[[], Any]) -> dict[str, Any]:
    """Milliseconds of a step where only one attention kernel is allowed."""
    found: dict[str, Any] = {}
    for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH):
        static._KEPT.pop(model, None)
        try:
            with sdpa_kernel(backend):
                search()
            found[backend.name] = step_ms(model)
        except Exception as error:
            found[backend.name] = str(error)[:200]
    static._KEPT.pop(model, None)
    return {"step_ms": found}


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
    bias[..., columns // 2 :] = float("-inf")

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
    return found
