"""Scoring candidates: a prompt forwarded once for all of them, against the ways one would write with transformers alone.

CPU time of one thread, variants in turn, the least of the repeats; every variant's scores are checked against the others first.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import harness
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

from raw2s.decoding.beams import generate_beams
from raw2s.decoding.packing import token_tree
from raw2s.decoding.scoring import continuation_logprobs
from raw2s.decoding.tokens import encode_prompt, encode_target
from raw2s.models.load import load_model, load_tokenizer
from raw2s.tasks.slurp import pool_rows

Ids = list[int]
Score = Callable[[PreTrainedModel, list[Ids], list[list[Ids]]], Tensor]
"""The summed log-probability of every candidate, prompt after prompt."""
SHAPES = [(4, 256, 12, 32), (2, 512, 24, 32)]
"""Prompts, tokens of a prompt, candidates of each, tokens of a candidate."""
SIZE = {"vocab_size": 8192, "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
GATED = {**SIZE, "intermediate_size": 704, "num_key_value_heads": 2}
ARCHITECTURES: dict[str, PreTrainedConfig] = {
    "gpt2": GPT2Config(**SIZE),
    "opt": OPTConfig(**SIZE, ffn_dim=1024, word_embed_proj_dim=256),
    "gpt_neox": GPTNeoXConfig(**SIZE, intermediate_size=1024),
    "llama": LlamaConfig(**GATED),
    "qwen2": Qwen2Config(**GATED),
    "mistral": MistralConfig(**GATED),
}
TEACHERS = ["tiny-gpt2", "tiny-opt", "tiny-gpt-neox"]
DEMO_PROMPTS = 100


def naive(rows: int) -> Score:
    """All logits and their log-softmax, `rows` candidates at a time."""

    def score(model: PreTrainedModel, prompts: list[Ids], candidates: list[list[Ids]]) -> Tensor:
        sums = []
        for prompt, texts in zip(prompts, candidates, strict=True):
            for batch in torch.tensor(texts).split(rows):
                ids_BT = torch.cat([torch.tensor(prompt).expand(len(batch), -1), batch], dim=1)
                logprob_BTV = model(ids_BT).logits.log_softmax(-1)
                sums.append(logprob_BTV[:, len(prompt) - 1 : -1].gather(2, batch[:, :, None])[:, :, 0].sum(1))
        return torch.cat(sums)

    return score


def keep(model: PreTrainedModel, prompts: list[Ids], candidates: list[list[Ids]]) -> Tensor:
    """A prompt's candidates as one batch, with `logits_to_keep`."""
    sums = []
    for prompt, texts in zip(prompts, candidates, strict=True):
        target_BC = torch.tensor(texts)
        ids_BT = torch.cat([torch.tensor(prompt).expand(len(texts), -1), target_BC], dim=1)
        logits_BCV = model(ids_BT, logits_to_keep=target_BC.shape[1] + 1).logits[:, :-1]
        sums.append((logits_BCV.gather(2, target_BC[:, :, None])[:, :, 0] - logits_BCV.logsumexp(2)).sum(1))
    return torch.cat(sums)


def padded_pairs(model: PreTrainedModel, prompts: list[Ids], candidates: list[list[Ids]]) -> Tensor:
    """Every prompt with every candidate as a row of its own, rows of like length padded to 8,192 tokens, the head at targets only."""
    pairs = [(prompt, text) for prompt, texts in zip(prompts, candidates, strict=True) for text in texts]
    lengths = [len(prompt) + len(text) - 1 for prompt, text in pairs]
    batches: list[list[int]] = []
    for i in sorted(range(len(pairs)), key=lengths.__getitem__):
        if not batches or lengths[i] * (len(batches[-1]) + 1) > 8192:
            batches.append([])
        batches[-1].append(i)
    sums = torch.empty(len(pairs))
    for batch in batches:
        ids_BT = pad_sequence([torch.tensor(pairs[i][0] + pairs[i][1][:-1]) for i in batch], batch_first=True)
        mask_BT = (torch.arange(ids_BT.shape[1]) < torch.tensor([lengths[i] for i in batch])[:, None]).long()
        hidden_BTH = model.get_decoder()(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False).last_hidden_state
        counts = [len(pairs[i][1]) for i in batch]
        targets_NH = torch.cat([hidden_BTH[b, lengths[i] - len(pairs[i][1]) : lengths[i]] for b, i in enumerate(batch)])
        logits_NV = model.get_output_embeddings()(targets_NH)
        token_N = torch.tensor([token for i in batch for token in pairs[i][1]])
        logprob_N = -torch.nn.functional.cross_entropy(logits_NV, token_N, reduction="none")
        sums[batch] = torch.stack([part.sum() for part in logprob_N.split(counts)])
    return sums


def expanded(model: PreTrainedModel, prompts: list[Ids], candidates: list[list[Ids]]) -> Tensor:
    """The prompt forwarded once, its keys and values repeated for every candidate, the head at the candidates only."""
    sums = []
    for prompt, texts in zip(prompts, candidates, strict=True):
        target_KC, cache = torch.tensor(texts), DynamicCache(config=model.config)
        decoder, head = model.get_decoder(), model.get_output_embeddings()
        prompt_H = decoder(input_ids=torch.tensor([prompt]), past_key_values=cache, use_cache=True).last_hidden_state[0, -1]
        cache.batch_repeat_interleave(len(texts))
        own_KCH = decoder(input_ids=target_KC[:, :-1], past_key_values=cache, use_cache=True).last_hidden_state
        hidden_KCH = torch.cat([prompt_H.expand(len(texts), 1, -1), own_KCH], dim=1)
        logits_KCV = head(hidden_KCH)
        sums.append((logits_KCV.gather(2, target_KC[:, :, None])[:, :, 0] - logits_KCV.logsumexp(2)).sum(1))
    return torch.cat(sums)


def packed(model: PreTrainedModel, prompts: list[Ids], candidates: list[list[Ids]]) -> Tensor:
    scored = continuation_logprobs(model, prompts, candidates, padding=0)
    return torch.tensor([sum(score) for scores in scored for score in scores])


def cpu_seconds(
    variants: dict[str, Score], model: PreTrainedModel, prompts: list[Ids], candidates: list[list[Ids]], repeats: int
) -> dict[str, float]:
    """The least CPU time of each, the variants in turn. Raises AssertionError when one scores differently."""

    def same(scores: dict[str, Tensor]) -> None:
        for name, sums in scores.items():
            difference = (sums - scores["packed"]).abs().max().item()
            assert difference < 1e-3, f"{name} differs by {difference}"

    calls = {name: partial(score, model, prompts, candidates) for name, score in variants.items()}
    return harness.least(harness.timed(calls, repeats, parity=same))


def long_prompts(repeats: int) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(GPT2Config(n_embd=256, n_layer=6, n_head=4)).eval()
    results: list[dict[str, Any]] = []
    for B, P, K, C in SHAPES:
        prompts = torch.randint(50257, (B, P)).tolist()
        candidates = torch.randint(50257, (B, K, C)).tolist()
        variants = {
            "packed": packed, "expanded prefix": expanded,
            "naive, one by one": naive(1), "naive, four at a time": naive(4), "logits_to_keep": keep,
        }  # fmt: skip
        seconds = cpu_seconds(variants, model, prompts, candidates, repeats)
        fastest_naive = min(seconds["naive, one by one"], seconds["naive, four at a time"])
        results.append(
            {
                "shape": {"prompts": B, "prompt_tokens": P, "candidates": K, "candidate_tokens": C},
                "parameters": model.num_parameters(),
                "cpu_seconds": seconds,
                "times_faster_than_naive": fastest_naive / seconds["packed"],
                "times_faster_than_logits_to_keep": seconds["logits_to_keep"] / seconds["packed"],
            }
        )
    return results


def architectures(repeats: int) -> list[dict[str, Any]]:
    """Packed rows against an expanded prefix cache, the two ways to forward a prompt once: which is faster for whom."""
    B, P, K, C = SHAPES[0]
    results: list[dict[str, Any]] = []
    for name, config in ARCHITECTURES.items():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        prompts = torch.randint(config.vocab_size, (B, P)).tolist()
        candidates = torch.randint(config.vocab_size, (B, K, C)).tolist()
        seconds = cpu_seconds({"packed": packed, "expanded prefix": expanded}, model, prompts, candidates, repeats)
        ratio = seconds["expanded prefix"] / seconds["packed"]
        results.append({"architecture": name, "cpu_seconds": seconds, "times_faster_than_expanded_prefix": ratio})
    return results


def demo_candidates() -> tuple[list[str], list[list[str]]]:
    """SLURP prompts and the pooled beams of the built-in models."""
    prompts = [row["text"] + "\n" for row in pool_rows()[:DEMO_PROMPTS]]
    pooled: list[dict[str, None]] = [{} for _ in prompts]
    for name in TEACHERS:
        found = generate_beams(load_model(name, "text"), load_tokenizer(name), prompts, beams=3, max_new_tokens=24)
        for texts, candidates in zip(pooled, found, strict=True):
            texts.update(dict.fromkeys(candidate.text for candidate in candidates))
    return prompts, [list(texts) for texts in pooled]


def demo(repeats: int) -> list[dict[str, Any]]:
    prompts, candidates = demo_candidates()
    results: list[dict[str, Any]] = []
    for name in TEACHERS:
        model, tokenizer = load_model(name, "text"), load_tokenizer(name)
        ids = [encode_prompt(tokenizer, prompt) for prompt in prompts]
        texts = [[encode_target(tokenizer, text)[0] for text in each] for each in candidates]
        seconds = cpu_seconds({"packed": packed, "padded pairs": padded_pairs}, model, ids, texts, repeats)
        results.append(
            {
                "model": name,
                "prompts": len(prompts),
                "candidates": sum(map(len, texts)),
                "tokens_of_pairs": sum(len(p) + len(text) - 1 for p, each in zip(ids, texts, strict=True) for text in each),
                "tokens_packed": sum(len(token_tree(p, each).ids) for p, each in zip(ids, texts, strict=True)),
                "cpu_seconds": seconds,
                "times_faster": seconds["padded pairs"] / seconds["packed"],
            }
        )
    return results
