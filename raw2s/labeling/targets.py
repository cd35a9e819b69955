"""From the weak-label table and the weights to what a student learns from (Eq. 2, 4, 6) and the preference pairs (Eq. 10, 11)."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch

from raw2s.losses import mix_targets
from raw2s.training.rows import TextTarget, TrainingRow

Score = Literal["mean_logprob", "sum_logprob", "prob"]


def candidate_score(words: Sequence[Sequence[float]], tokens: Sequence[int], weights: Sequence[float], score: Score) -> float:
    """The weighted sum over teachers of a candidate's score (Eq. 6).

    `words` (teachers, words + 1) are word log-probabilities, `tokens` the teachers' piece counts.
    """
    values = [sum(logprobs) for logprobs in words]
    match score:
        case "mean_logprob":
            values = [total / count for total, count in zip(values, tokens, strict=True)]
        case "prob":
            values = [math.exp(total) for total in values]
    return sum(weight * value for weight, value in zip(weights, values, strict=True))


def best_candidate(candidates: list[dict[str, Any]], weights: Sequence[float], score: Score) -> dict[str, Any]:
    """Joint decoding's arg-max (Eq. 6); of equals the smaller candidate index."""
    return max(candidates, key=lambda c: (candidate_score(c["words"], c["tokens"], weights, score), -c["candidate"]))


def text_rows(
    prompts: dict[int, str],
    table: list[dict[str, Any]],
    *,
    method: Literal["multi", "joint"],
    weights: Sequence[float],
    score: Score,
    confidence: bool,
    merge: bool,
) -> list[TrainingRow]:
    """One training row per prompt.

    `multi`: every teacher's own best beam with its weight and its word scores; teachers of weight zero have no say.
    Teachers who gave the same text share one sequence if `merge`. `joint`: the one candidate of joint decoding, with the
    word scores of the teacher that produced it (of several, the one that ranked it highest, then the first).
    """
    rows = []
    for i, group in itertools.groupby(table, key=lambda row: row["id"]):
        candidates = list(group)
        if method == "joint":
            best = best_candidate(candidates, weights, score)
            producer = min((rank, teacher) for teacher, rank in enumerate(best["rank"]) if rank >= 0)[1]
            given = [(producer, best, 1.0)]
        else:
            given = [
                (teacher, next(c for c in candidates if c["rank"][teacher] == 0), weight)
                for teacher, weight in enumerate(weights)
                if weight > 0
            ]
        groups: dict[Any, list[tuple[int, dict[str, Any], float]]] = {}
        for teacher, candidate, weight in given:
            groups.setdefault(candidate["text"] if merge else teacher, []).append((teacher, candidate, weight))
        rows.append(TrainingRow(id=i, prompt=prompts[i], targets=[_text_target(g, confidence) for g in groups.values()]))
    return rows


def _text_target(given: list[tuple[int, dict[str, Any], float]], confidence: bool) -> TextTarget:
    target = TextTarget(text=given[0][1]["text"], weights=[weight for _, _, weight in given])
    if confidence:
        target["word_logprobs"] = [candidate["words"][teacher] for teacher, candidate, _ in given]
    return target


def class_rows(
    prompts: dict[int, str], table: list[dict[str, Any]], *, weights: Sequence[float], confidence: bool
) -> list[TrainingRow]:
    """One training row per prompt: the teachers' class probabilities, or their arg-max, mixed with the weights (Eq. 2, 4)."""
    rows = []
    for row in table:
        logits_IK = torch.tensor(row["logits"], dtype=torch.float64)
        if confidence:
            target_IK = logits_IK.softmax(dim=-1)
        else:
            target_IK = torch.nn.functional.one_hot(logits_IK.argmax(dim=-1), logits_IK.shape[-1]).double()
        mixed_K = mix_targets(target_IK, torch.tensor(weights, dtype=torch.float64))
        rows.append(TrainingRow(id=row["id"], prompt=prompts[row["id"]], probabilities=mixed_K.tolist()))
    return rows


def preference_pairs(
    ids: list[int],
    prompts: dict[int, str],
    candidates: dict[int, list[dict[str, Any]]],
    weights: Sequence[float],
    score: Score,
) -> list[TrainingRow]:
    """Chosen = arg-max, rejected = arg-min of the teachers' weighted score over the student's own beams (Eq. 10, 11).

    A candidate is {"text", "reference", "words", "tokens"}: `reference` its summed log-probability under the fine-tuned
    student. A prompt whose best equals its worst gives no pair.
    """
    rows = []
    for i in ids:
        scores = [candidate_score(c["words"], c["tokens"], weights, score) for c in candidates[i]]
        order = range(len(scores))
        chosen = candidates[i][max(order, key=lambda k: (scores[k], -k))]
        rejected = candidates[i][min(order, key=lambda k: (scores[k], k))]
        if max(scores) > min(scores):
            rows.append(
                TrainingRow(
                    id=i,
                    prompt=prompts[i],
                    chosen=chosen["text"],
                    rejected=rejected["text"],
                    ref_chosen=chosen["reference"],
                    ref_rejected=rejected["reference"],
                )
            )
    return rows
