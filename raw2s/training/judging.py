"""The task's own score of a model in training, on devel: what decides between epochs with `judge: score`.

Answers are scored as tests score them. Text is decoded greedily by the module that is trained, as it stands, in batches that are
cut alike whoever decodes them: no number of workers and no resumed run gives another score.
"""

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from raw2s.decoding.beams import generate_beams
from raw2s.decoding.tokens import check_context, encode_prompt
from raw2s.errors import StageFailed
from raw2s.evaluation import standard_error
from raw2s.labels.forms import FORMS
from raw2s.tasks import Example
from raw2s.training.job import Job, Judge
from raw2s.training.progress import SCORE, STANDARD_ERROR

MICRO_BATCHES_AT_ONCE = 4
"""Prompts decoded at once, in micro-batches: what a token leaves in the cache is far less than a step keeps of it."""


def check_room(job: Job, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
    """Raise ValueError, on every rank alike, where an example to be decoded leaves no room for an answer."""
    if job.judge is None or job.judge.max_new_tokens is None:
        return
    for example in job.judge.examples:
        length = len(encode_prompt(tokenizer, example["prompt"], chat=job.chat)) + job.judge.max_new_tokens
        check_context(config, length, f"validation example {example['id']} with {job.judge.max_new_tokens} new tokens")


def decoded_score(
    job: Job, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, rank: int, workers: int
) -> dict[str, float]:
    """`judged` of greedy answers; every rank decodes its share and learns the score. All ranks must call, in eval mode.

    Not under ZeRO-3, where all ranks would have to take the same steps.
    """
    judge = job.judge
    assert judge is not None and judge.max_new_tokens is not None, "the job says how long an answer may be"
    texts: dict[int, str] = {}
    for batch in decoding_batches(judge.examples, MICRO_BATCHES_AT_ONCE * job.training.micro_batch_size)[rank::workers]:
        found = generate_beams(
            model, tokenizer, [judge.examples[i]["prompt"] for i in batch], beams=1, max_new_tokens=judge.max_new_tokens,
            chat=job.chat, graph=False,
        )  # fmt: skip
        texts |= {i: candidates[0].text for i, candidates in zip(batch, found, strict=True)}
    shares = [texts]
    if workers > 1:
        shares = [{} for _ in range(workers)]
        dist.all_gather_object(shares, texts)
    said = {i: text for share in shares for i, text in share.items()}
    return judged(judge, [said[i] for i in range(len(judge.examples))])


def classified_score(job: Job, logits_RK: torch.Tensor) -> dict[str, float]:
    """`judged` of the likeliest classes; one row of logits a validation example."""
    assert job.judge is not None
    return judged(job.judge, [FORMS["classes"].said(logits, job.classes) for logits in logits_RK.tolist()])


def judged(judge: Judge, texts: Sequence[str]) -> dict[str, float]:
    """The score of the answers, in the examples' order, and its standard error over the examples.

    Raises StageFailed for a score that is not finite, which ranks nothing.
    """
    metric = judge.scoring.metric
    scored = judge.scoring.score([example["gold"] for example in judge.examples], texts)
    if not math.isfinite(scored.score):
        raise StageFailed(f"the metric {metric.name} gives {scored.score} on devel; mend it, or set judge: loss")
    return {SCORE: scored.score, SCORE + STANDARD_ERROR: standard_error(scored.counts, metric.score)}


def decoding_batches(examples: Sequence[Example], size: int) -> list[list[int]]:
    """Places of the examples, `size` a batch, like lengths together."""
    order = sorted(range(len(examples)), key=lambda i: (len(examples[i]["prompt"]), i))
    return [order[start : start + size] for start in range(0, len(order), size)]
