"""Beams and labeling on a GPU: steps replayed as a CUDA graph against steps launched one by one, and fp32.

GPT2-Large's shape with random weights, and TinyLlama's for heads that share keys. Run by `benchmarks/gpu.py`.
"""

import copy
import json
import random
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from gpu_beam_steps import attention, kernels, step_ms, steps
from gpu_timing import seconds, wait
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedConfig, PreTrainedModel

from raw2s.decoding import static_search as static
from raw2s.decoding import step_attention
from raw2s.decoding.scoring import continuation_logprobs
from raw2s.decoding.search import Hypotheses, shrinking_search
from raw2s.models.load import fuse_gelu

TIMES_FASTER_THAN_TODAY = 3
"""The bar: steps as a graph against steps launched one by one, both in bf16."""


@dataclass(frozen=True, kw_only=True)
class Case:
    config: PreTrainedConfig
    prompts: int
    tokens: int
    beams: int
    new_tokens: int
    candidates: int
    target_tokens: int
    repeats: int


LARGE = Case(
    config=GPT2Config(n_embd=1280, n_layer=36, n_head=20), prompts=32, tokens=450, beams=5, new_tokens=48, candidates=15,
    target_tokens=30, repeats=5,
)  # fmt: skip
TINY = Case(
    config=GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=600), prompts=4, tokens=20, beams=3, new_tokens=9, candidates=3,
    target_tokens=5, repeats=2,
)  # fmt: skip

LLAMA = LlamaConfig(
    vocab_size=32_000, hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32, num_key_value_heads=4,
    max_position_embeddings=2048, tie_word_embeddings=False,
)  # fmt: skip
TINY_LLAMA = LlamaConfig(
    vocab_size=600, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
)


@torch.inference_mode()
def run(out: Path, tiny: bool = False) -> dict[str, Any]:
    """Each result by itself: one that fails leaves the others. All of them are in `out` as they come."""
    case, device = TINY if tiny else LARGE, torch.device("cuda" if torch.cuda.is_available() else "cpu")
    single = random_model(case.config, device, torch.float32)
    as_published = copy.deepcopy(single).bfloat16()
    half = copy.deepcopy(as_published)
    for model in (single, half):
        fuse_gelu(model)
    even = padded([case.tokens] * case.prompts, case, device)
    draw = random.Random(0)
    uneven = padded([draw.randint(case.tokens // 4, case.tokens) for _ in range(case.prompts)], case, device)
    size = case.config.n_embd // case.config.n_head
    columns = static.cache_columns(case.tokens, case.beams, case.new_tokens)[1]
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "kernel": lambda: kernel(half, uneven, case),
        "beams_agree": lambda: agreement(single, half, uneven, case),
        "beams": lambda: times(as_published, half, even, case),
        "step": lambda: steps(half, lambda tokens: launched(half, even, replace(case, new_tokens=tokens)), case.new_tokens),
        "step_kernels": lambda: kernels(half),
        "step_attention": lambda: attention((case.prompts, case.config.n_head, case.beams, size), columns, device),
        "labeling": lambda: labeling(single, half, even, case),
        "beams_grouped": lambda: grouped(replace(case, config=TINY_LLAMA if tiny else LLAMA), device),
    }
    found: dict[str, Any] = {}
    for name, measure in measures.items():
        try:
            found[name] = measure()
        except Exception:
            found[name] = {"error": traceback.format_exc().splitlines()[-8:]}
        print(json.dumps({"part": "beams", "name": name, **found[name]}), flush=True)
        out.write_text(json.dumps(found, indent=1) + "\n")
    return found


def random_model(config: PreTrainedConfig, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    torch.manual_seed(0)
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    last_norm = model.transformer.ln_f if config.model_type == "gpt2" else model.model.norm
    last_norm.weight.mul_(6)  # as it is every distribution is nearly flat, and rounding alone decides between beams
    return model


def padded(lengths: list[int], case: Case, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random prompts, left-padded, and their mask: (B, P)."""
    ids_BP = torch.randint(case.config.vocab_size - 1, (len(lengths), max(lengths)), device=device)
    first_B1 = max(lengths) - torch.tensor(lengths, device=device)[:, None]
    return ids_BP, (torch.arange(max(lengths), device=device) >= first_B1).long()


def replayed(model: PreTrainedModel, prompts: tuple[Tensor, Tensor], case: Case) -> Hypotheses:
    found = static.static_search(model, *prompts, **options(case))
    return Hypotheses(found.final_ids_BMT, found.final_tokens_BM, found.final_score_BM)


def launched(model: PreTrainedModel, prompts: tuple[Tensor, Tensor], case: Case) -> Hypotheses:
    return shrinking_search(model, *prompts, **options(case))


def options(case: Case) -> dict[str, Any]:
    return {"beams": case.beams, "max_new_tokens": case.new_tokens, "end_id": case.config.vocab_size - 1}


def times(as_published: PreTrainedModel, half: PreTrainedModel, prompts: tuple[Tensor, Tensor], case: Case) -> dict[str, Any]:
    """Seconds of one batch. The first call captures the graph; `replayed_torch` attends, writes its cache and scores by torch alone."""
    static._KEPT.pop(half, None)
    wait()
    start = time.perf_counter()
    replayed(half, prompts, case)
    wait()
    figures = {
        "first_call": time.perf_counter() - start,
        "replayed": seconds(lambda: replayed(half, prompts, case), case.repeats),
        "launched": seconds(lambda: launched(as_published, prompts, case), 2),
    }
    step = step_ms(half)
    with in_torch(half):
        figures["replayed_torch"] = seconds(lambda: replayed(half, prompts, case), 2)
        step_torch = step_ms(half)
    replayed(half, prompts, case)
    return {
        "seconds": figures,
        "step_ms": {"triton": step, "torch": step_torch},
        "in_triton": step_attention.in_triton(prompts[0]),
        "times_faster_than_launched": figures["launched"] / figures["replayed"],
        "bar": f"at least {TIMES_FASTER_THAN_TODAY}",
        "times_faster_than_0.80_s": 0.80 / figures["replayed"],
    }


@contextmanager
def in_torch(model: PreTrainedModel) -> Iterator[None]:
    """Within it, the model's steps use no kernel of ours and no padded head."""
    before = step_attention.in_triton, static.pays_padding
    step_attention.in_triton, static.pays_padding = (lambda states: False), (lambda head: False)
    static._KEPT.pop(model, None)
    try:
        yield
    finally:
        step_attention.in_triton, static.pays_padding = before
        static._KEPT.pop(model, None)


def kernel(half: PreTrainedModel, prompts: tuple[Tensor, Tensor], case: Case) -> dict[str, Any]:
    """Whether steps run in Triton; where they raise, everything after is measured without."""
    try:
        replayed(half, prompts, replace(case, new_tokens=3))
        wait()
    except Exception:
        step_attention.in_triton = lambda states: False
        return {"runs": False, "error": traceback.format_exc().splitlines()[-8:]}
    return {"runs": step_attention.in_triton(prompts[0])}


def agreement(single: PreTrainedModel, half: PreTrainedModel, prompts: tuple[Tensor, Tensor], case: Case) -> dict[str, Any]:
    """Prompts of unlike lengths. In fp32 both searches find the same; in bf16 each is as near to fp32 as the other.

    `score_error`: a beam's mean log-probability against fp32's for the same tokens, teacher-forced: the largest and the mean.
    """
    found = {
        "replayed_fp32": replayed(single, prompts, case), "launched_fp32": launched(single, prompts, case),
        "replayed": replayed(half, prompts, case), "launched": launched(half, prompts, case),
    }  # fmt: skip
    named = {name: candidates(hypotheses) for name, hypotheses in found.items()}

    def shared(one: str, other: str) -> float:
        same = sum(len(set(a) & set(b)) for a, b in zip(named[one], named[other], strict=True))
        return same / sum(map(len, named[one]))

    texts = [row[mask.bool()].tolist() for row, mask in zip(*prompts, strict=True)]
    errors = {}
    for name in named:
        targets = [[list(ids) for ids in own] for own in named[name]]
        scores = continuation_logprobs(single, texts, targets, padding=0)
        off = [
            abs(mean - sum(score) / len(score))
            for own, scored in zip(named[name], scores, strict=True)
            for mean, score in zip(own.values(), scored, strict=True)
        ]
        errors[name] = {"max": max(off), "mean": sum(off) / len(off)}
    return {
        "candidates_shared_fp32": shared("replayed_fp32", "launched_fp32"), "bar": "at least 0.97 in fp32",
        "candidates_shared_bf16": shared("replayed", "launched"),
        "candidates_shared_replayed_bf16_and_fp32": shared("replayed", "replayed_fp32"),
        "candidates_shared_launched_bf16_and_fp32": shared("launched", "launched_fp32"),
        "score_error": errors,
    }  # fmt: skip


def candidates(found: Hypotheses) -> list[dict[tuple[int, ...], float]]:
    """Per prompt the mean log-probability of each hypothesis, by its tokens."""
    return [
        {tuple(ids[:n]): mean for ids, n, mean in zip(ids_MT, tokens_M, mean_M, strict=True) if mean > float("-inf")}
        for ids_MT, tokens_M, mean_M in zip(
            found.ids_BMT.tolist(), found.tokens_BM.tolist(), found.mean_logprob_BM.tolist(), strict=True
        )
    ]


def grouped(case: Case, device: torch.device) -> dict[str, Any]:
    """Seconds of one batch of a model whose heads share keys and values, in bf16."""
    model = random_model(case.config, device, torch.bfloat16)
    prompts = padded([case.tokens] * case.prompts, case, device)
    replays = seconds(lambda: replayed(model, prompts, case), 3)
    launches = seconds(lambda: launched(model, prompts, case), 2)
    return {
        "parameters": model.num_parameters(),
        "seconds": {"replayed": replays, "launched": launches},
        "times_faster_than_launched": launches / replays,
    }


def labeling(single: PreTrainedModel, half: PreTrainedModel, prompts: tuple[Tensor, Tensor], case: Case) -> dict[str, Any]:
    """A teacher's share of labeling: its beams, and the scores of every teacher's candidates. Prompts a second."""
    texts = prompts[0].tolist()
    draw = random.Random(1)

    def target() -> list[int]:
        return [draw.randrange(case.config.vocab_size) for _ in range(case.target_tokens)]

    targets = [[target() for _ in range(case.candidates)] for _ in texts]
    models = {"bf16": half, "fp32": single}
    spent: dict[str, dict[str, float]] = {}
    sums: dict[str, Tensor] = {}
    for name, model in models.items():
        score = lambda model=model: continuation_logprobs(model, texts, targets, padding=0)  # noqa: E731
        sums[name] = torch.tensor([sum(scored) / len(scored) for own in score() for scored in own])
        spent[name] = {"beams": seconds(lambda model=model: replayed(model, prompts, case), 1), "scores": seconds(score, 1)}
    rate = {name: len(texts) / sum(parts.values()) for name, parts in spent.items()}
    return {
        "seconds": spent, "prompts_per_second": rate, "bf16_times_faster": rate["bf16"] / rate["fp32"],
        "mean_logprob_error": {"max": float((sums["bf16"] - sums["fp32"]).abs().max()), "rms": float((sums["bf16"] - sums["fp32"]).pow(2).mean().sqrt())},
    }  # fmt: skip
