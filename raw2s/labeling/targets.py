"""From the weak-label table and the weights to what a student learns from (Eq. 2, 4, 6) and the preference pairs (Eq. 10, 11)."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch

from raw2s.decoding.bridge import words
from raw2s.losses import mix_targets
from raw2s.training.rows import TextTarget, TrainingRow

Score = Literal["mean_logprob", "sum_logprob", "prob"]


def candidate_score(
    words: Sequence[Sequence[float] | None], tokens: Sequence[int | None], weights: Sequence[float], score: Score
) -> float:
    """The weighted sum over teachers of a candidate's score (Eq. 6).

    `words` (teachers, words + 1) are word log-probabilities, `tokens` the teachers' piece counts; both None for a teacher that
    scores nothing, whose weight has no say.
    """
    values = []
    for weight, logprobs, count in zip(weights, words, tokens, strict=True):
        if logprobs is None or count is None:
            continue
        total = sum(logprobs)
        values.append(weight * {"mean_logprob": total / count, "sum_logprob": total, "prob": math.exp(total)}[score])
    return sum(values)


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

    `multi`: every teacher's own best beam with its weight and its word scores; teachers of weight zero have no say, and those
    without a text for the prompt leave theirs to the others. A prompt for which none is left gives no row.
    Teachers who gave the same text share one sequence if `merge`. `joint`: the one candidate of joint decoding, with the
    word scores of the teacher that produced it (of several, the one that ranked it highest, then the first).
    A teacher that scores nothing, a file of labels, is sure of its words.
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
                (teacher, candidate, weight)
                for teacher, weight in enumerate(weights)
                for candidate in candidates
                if weight > 0 and candidate["rank"][teacher] == 0
            ]
        if not given:
            continue
        total = sum(weight for _, _, weight in given)
        groups: dict[Any, list[tuple[int, dict[str, Any], float]]] = {}
        for teacher, candidate, weight in given:
            groups.setdefault(candidate["text"] if merge else teacher, []).append((teacher, candidate, weight / total))
        rows.append(TrainingRow(id=i, prompt=prompts[i], targets=[_text_target(g, confidence) for g in groups.values()]))
    return rows


def _text_target(given: list[tuple[int, dict[str, Any], float]], confidence: bool) -> TextTarget:
    target = TextTarget(text=given[0][1]["text"], weights=[weight for _, _, weight in given])
    if confidence:
        sure = [0.0] * (len(words(target["text"])) + 1)
        target["word_logprobs"] = [candidate["words"][teacher] or sure for teacher, candidate, _ in given]
    return target


def class_rows(
    prompts: dict[int, str],
    table: list[dict[str, Any]],
    *,
    weights: Sequence[float],
    confidence: bool,
    temperatures: Sequence[float] | None = None,
) -> list[TrainingRow]:
    """One training row per prompt: the teachers' class probabilities, or their arg-max, mixed with the weights (Eq. 2, 4).

    `temperatures` divide the teachers' logits. Teachers without a label for the prompt leave their weight to the others; a
    prompt for which no teacher of weight above zero is left gives no row.
    """
    rows = []
    for row in table:
        present = [i for i, logits in enumerate(row["logits"]) if logits is not None and weights[i] > 0]
        if not present:
            continue
        logits_IK = torch.tensor([row["logits"][i] for i in present], dtype=torch.float64)
        if temperatures is not None:
            logits_IK /= torch.tensor([temperatures[i] for i in present], dtype=torch.float64)[:, None]
        if confidence:
            target_IK = logits_IK.softmax(dim=-1)
        else:
            target_IK = torch.nn.functional.one_hot(logits_IK.argmax(dim=-1), logits_IK.shape[-1]).double()
        mixed_K = mix_targets(target_IK, torch.tensor([weights[i] for i in present], dtype=torch.float64))
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
