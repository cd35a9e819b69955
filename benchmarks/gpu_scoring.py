"""Scoring candidates on one GPU in bf16: the dense mask, block masks, compiled layers; where the time goes; transformers alone."""

import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial, wraps
from typing import Any
from unittest.mock import patch

import torch
from gpu_report import SEED, Report, made_model, prepare
from gpu_training import graphs
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from transformers import PreTrainedModel

from raw2s.decoding import scoring

Ids = list[int]
Score = Callable[[PreTrainedModel, list[Ids], list[list[Ids]]], Tensor]


def packed_score(model: PreTrainedModel, prompts: list[Ids], candidates: list[list[Ids]]) -> Tensor:
    """Summed log P of every candidate."""
    scored = scoring.continuation_logprobs(model, prompts, candidates, padding=0)
    return torch.tensor([sum(score) for scores in scored for score in scores])


def todays_score(model: PreTrainedModel, prompts: list[Ids], candidates: list[list[Ids]]) -> Tensor:
    """As at d5f8c63 on CUDA: rows of whatever shape, the vocabulary in blocks of 256 MB."""
    with (
        patch.object(scoring, "layout_for", lambda _: "rows"),
        patch.object(scoring, "_token_logprobs", scoring._logprobs_by_columns),
        patch.object(scoring, "HEAD_ELEMENTS", 2**26),
    ):
        return packed_score(model, prompts, candidates)


@torch.inference_mode()
def plain_score(model: PreTrainedModel, prompts: list[Ids], candidates: list[list[Ids]], *, keep: bool) -> Tensor:
    """A prompt's candidates as one batch: with `logits_to_keep`, or all logits and their log-softmax."""
    sums = []
    for prompt, texts in zip(prompts, candidates, strict=True):
        text_KC = torch.tensor(texts, device=model.device)
        ids_KT = torch.cat([torch.tensor(prompt, device=model.device).expand(len(texts), -1), text_KC], dim=1)
        tail = text_KC.shape[1] + 1
        logits = model(ids_KT, logits_to_keep=tail if keep else 0).logits
        logprob_KCV = logits.float().log_softmax(-1)[:, -tail:-1]
        sums.append(logprob_KCV.gather(2, text_KC[:, :, None])[:, :, 0].sum(1))
    return torch.cat(sums).cpu()


def made_texts(report: Report, draw: random.Random, prompts: int) -> tuple[list[Ids], list[list[Ids]]]:
    """Random prompts and their candidates, of the sizes' lengths."""
    vocabulary, (_, prompt, candidates, candidate) = report.sizes.scorer.vocab_size, report.sizes.scored

    def ids(length: int) -> Ids:
        return [draw.randrange(vocabulary) for _ in range(length)]

    return [ids(prompt) for _ in range(prompts)], [[ids(candidate) for _ in range(candidates)] for _ in range(prompts)]


VARIANTS: dict[str, tuple[tuple[str, ...], Score, int]] = {
    "today": ((), todays_score, 7),
    "blocks + compile": (("blocks", "compile"), packed_score, 11),
    "dense + compile": (("compile",), packed_score, 7),
    "logits_to_keep": ((), partial(plain_score, keep=True), 1),
    "naive": ((), partial(plain_score, keep=False), 1),
}
"""How the model is run, what scores, and how often it is timed; the first is the path of d5f8c63."""


def scoring_part(report: Report) -> None:
    """GPT-2 Large's shape in bf16: scores against fp32's first, then the median time of each way."""
    model = made_model(report.sizes.scorer, report.device).eval()
    draw = random.Random(SEED)
    texts = made_texts(report, draw, report.sizes.scored[0])
    exact = todays_score(model.float(), *texts)
    model.bfloat16()
    seconds: dict[str, float] = {}
    errors: dict[str, float] = {}
    for name, (how, score, repeats) in VARIANTS.items():
        with report.part(f"scoring, {name}"):
            prepare(model, how)
            start = time.perf_counter()
            error_C = (score(model, *texts) - exact).abs()
            first = time.perf_counter() - start
            errors[name] = error_C.mean().item()
            bound = 2 * errors["today"] + 1e-3  # bf16's own error is what the first way has
            assert errors[name] <= bound, f"{errors[name]} nats off fp32's, today's {errors['today']}"
            score(model, *texts)
            seconds[name] = statistics.median(timed(score, model, texts) for _ in range(repeats))
            report.add(
                f"scoring, {name}", ms=1e3 * seconds[name], times_today=seconds["today"] / seconds[name], first_call_s=first,
                error_nats_mean=errors[name], error_nats_max=error_C.max().item(),
            )  # fmt: skip
            if score is packed_score:
                report.add(f"scoring, {name}: split", **split(model, texts))
                report.add(f"scoring, {name}: kernels", **kernels(model, texts))
            if name == "blocks + compile":
                report.add("scoring, other shapes", **other_shapes(report, model, draw, seconds[name]))


def timed(score: Score, model: PreTrainedModel, texts: tuple[list[Ids], list[list[Ids]]]) -> float:
    """Seconds of one call; it ends with numbers on the host, so nothing is left under way."""
    start = time.perf_counter()
    score(model, *texts)
    return time.perf_counter() - start


def split(model: PreTrainedModel, texts: tuple[list[Ids], list[list[Ids]]]) -> dict[str, float]:
    """Milliseconds of a call's parts, each waited for, so that together they are more than a call."""
    spent: Counter[str] = Counter()
    wait: Callable[[], object] = torch.cuda.synchronize if model.device.type == "cuda" else lambda: None

    def watched(name: str) -> Callable[..., Any]:
        original = getattr(scoring, name)

        @wraps(original)
        def call(*args: Any, **options: Any) -> Any:
            wait()
            start = time.perf_counter()
            found = original(*args, **options)
            wait()
            spent[name] += 1e3 * (time.perf_counter() - start)
            return found

        return call

    names = ("token_tree", "_batches", "_packed", "hidden_at", "linear_log_probs")
    with ExitStack() as patches:
        for name in names:
            patches.enter_context(patch.object(scoring, name, watched(name)))
        whole = 1e3 * timed(packed_score, model, texts)
    return dict(spent) | {"rest": whole - sum(spent.values())}


def kernels(model: PreTrainedModel, texts: tuple[list[Ids], list[list[Ids]]]) -> dict[str, float]:
    """Milliseconds on the device of one call, all kernels and the ten that take most of it."""
    on_gpu = model.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
        packed_score(model, *texts)
    spent = {
        event.key[:70]: (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e3
        for event in profiler.key_averages()
    }
    most = sorted(spent.items(), key=lambda item: -item[1])[:10]
    return {"all": round(sum(spent.values()), 2), **{name: round(ms, 2) for name, ms in most}}


def other_shapes(report: Report, model: PreTrainedModel, draw: random.Random, fixed: float) -> dict[str, float]:
    """Calls on other numbers of prompts, after one that makes the graph for any shape: time a prompt beside `fixed` calls'."""
    number, *_ = report.sizes.scored
    calls = [made_texts(report, draw, max(1, number + number * share // 16)) for share in (-8, -3, 2, -5, 4, -2, 3)]
    timed(packed_score, model, calls[0])
    before = graphs()
    seconds = sum(timed(packed_score, model, texts) for texts in calls[1:])
    prompts = sum(len(given) for given, _ in calls[1:])
    return {
        "ms_a_prompt": 1e3 * seconds / prompts, "times_fixed": seconds / prompts * number / fixed,
        "graphs_in_calls": graphs() - before,
    }  # fmt: skip
