"""Scoring candidates on one GPU in bf16: the dense mask, block masks, compiled layers; transformers alone for scale."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import torch
from gpu_report import SEED, Report, made_model, prepare
from torch import Tensor
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
        logits = model(ids_KT, logits_to_keep=tail).logits if keep else model(ids_KT).logits.log_softmax(-1)[:, -tail:]
        logprob_KCV = logits[:, :-1].float().log_softmax(-1)
        sums.append(logprob_KCV.gather(2, text_KC[:, :, None])[:, :, 0].sum(1))
    return torch.cat(sums).cpu()


def scoring_part(report: Report) -> None:
    """GPT-2 Large's shape in bf16: scores against fp32's first, then the least time of each way."""
    config, (prompts_n, prompt, candidates_n, candidate) = report.sizes.scorer, report.sizes.scored
    model = made_model(config, report.device).eval()
    torch.manual_seed(SEED)
    prompts = torch.randint(config.vocab_size, (prompts_n, prompt)).tolist()
    candidates = torch.randint(config.vocab_size, (prompts_n, candidates_n, candidate)).tolist()
    exact = todays_score(model.float(), prompts, candidates)
    model.bfloat16()
    keep, naive = partial(plain_score, keep=True), partial(plain_score, keep=False)
    variants: dict[str, tuple[tuple[str, ...], Score, int]] = {
        "today": ((), todays_score, 5),
        "blocks + compile": (("blocks", "compile"), packed_score, 9),
        "blocks + compile each shape": (("blocks", "compile each shape"), packed_score, 5),
        "fused head": ((), packed_score, 5),
        "blocks": (("blocks",), packed_score, 5),
        "logits_to_keep": ((), keep, 1),
        "naive": ((), naive, 1),
    }
    seconds: dict[str, float] = {}
    errors: dict[str, float] = {}
    for name, (how, score, repeats) in variants.items():
        with report.part(f"scoring, {name}"):
            prepare(model, how)
            start = time.perf_counter()
            error_C = (score(model, prompts, candidates) - exact).abs()
            first = time.perf_counter() - start
            errors[name] = error_C.mean().item()
            far = errors[name] > 1.5 * errors["today"] + 1e-3
            # The ways of transformers alone round logits to bf16.
            assert score is not packed_score or not far, f"{errors[name]} nats off fp32's, today's {errors['today']}"
            score(model, prompts, candidates)
            times = []
            for _ in range(repeats):
                start = time.perf_counter()
                score(model, prompts, candidates)
                times.append(time.perf_counter() - start)
            seconds[name] = statistics.median(times)
            report.add(
                f"scoring, {name}", ms=1e3 * seconds[name], times_today=seconds["today"] / seconds[name], first_call_s=first,
                error_nats_mean=errors[name], error_nats_max=error_C.max().item(),
            )  # fmt: skip
