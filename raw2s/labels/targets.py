"""From the weak-label table and the weights to what a student learns from (Eq. 2, 4, 6) and the preference pairs (Eq. 10, 11)."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import torch

from raw2s.decoding.bridge import words
from raw2s.labels.rows import TextTarget, TrainingRow
from raw2s.labels.table import CandidateRow
from raw2s.losses import mix_targets

Score = Literal["mean_logprob", "sum_logprob", "prob"]


@dataclass(frozen=True, kw_only=True)
class Labeled:
    """B as the teachers labeled it: what a method makes training rows of."""

    prompts: Mapping[int, str]
    table: Sequence[Any]
    """`CandidateRow`s of text, `ClassRow`s of classes, in the order of the ids."""
    weights: Sequence[float]
    """One a teacher, in the order of the table's lists."""
    temperatures: Sequence[float] | None = None
    """That divide the teachers' class logits; None leaves them."""
    teachers: Sequence[str] = ()
    """Their names, in the same order; only methods that learn the weights ask."""
    merge: bool = True
    """Whether teachers who gave one text may share one sequence: where the loss is linear in the target."""


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


def best_candidate(candidates: Sequence[CandidateRow], weights: Sequence[float], score: Score) -> CandidateRow:
    """Joint decoding's arg-max (Eq. 6); of equals the smaller candidate index."""
    return max(candidates, key=lambda c: (candidate_score(c["words"], c["tokens"], weights, score), -c["candidate"]))


def text_rows(labeled: Labeled, *, confidence: bool, per_teacher: bool = False) -> list[TrainingRow]:
    """One training row per prompt: every teacher's own best beam with its weight and, with `confidence`, its word scores.

    Teachers of weight zero have no say, and those without a text for the prompt leave theirs to the others. A prompt for which
    none is left gives no row. Teachers who gave the same text share one sequence if `labeled.merge`.
    A teacher that scores nothing, a file of labels, is sure of its words. `per_teacher`: none share, and each target names its
    teacher, for weights that are learned.
    """
    rows = []
    for i, candidates in _by_prompt(labeled.table):
        given = [
            (teacher, candidate, weight)
            for teacher, weight in enumerate(labeled.weights)
            for candidate in candidates
            if weight > 0 and candidate["rank"][teacher] == 0
        ]
        if not given:
            continue
        total = sum(weight for _, _, weight in given)
        groups: dict[Any, list[tuple[int, CandidateRow, float]]] = {}
        for teacher, candidate, weight in given:
            key = candidate["text"] if labeled.merge and not per_teacher else teacher
            groups.setdefault(key, []).append((teacher, candidate, weight / total))
        targets = [_text_target(group, confidence) for group in groups.values()]
        if per_teacher:
            for teacher, target in zip(groups, targets, strict=True):
                target["teacher"] = teacher
        rows.append(TrainingRow(id=i, prompt=labeled.prompts[i], targets=targets))
    return rows


def joint_rows(labeled: Labeled, *, score: Score, confidence: bool) -> list[TrainingRow]:
    """One training row per prompt: the one candidate of joint decoding (Eq. 6).

    With the word scores of the teacher that produced it; of several, the one that ranked it highest, then the first.
    """
    rows = []
    for i, candidates in _by_prompt(labeled.table):
        best = best_candidate(candidates, labeled.weights, score)
        producer = min((rank, teacher) for teacher, rank in enumerate(best["rank"]) if rank >= 0)[1]
        target = _text_target([(producer, best, 1.0)], confidence)
        rows.append(TrainingRow(id=i, prompt=labeled.prompts[i], targets=[target]))
    return rows


def class_rows(labeled: Labeled, *, confidence: bool, per_teacher: bool = False) -> list[TrainingRow]:
    """One training row per prompt: the teachers' class probabilities, or their arg-max, mixed with the weights (Eq. 2, 4).

    Teachers without a label for the prompt leave their weight to the others; a prompt for which no teacher of weight above zero
    is left gives no row. `per_teacher`: each teacher's own stand beside the mixture, for weights that are learned.
    """
    rows = []
    for row in labeled.table:
        present = [i for i, logits in enumerate(row["logits"]) if logits is not None and labeled.weights[i] > 0]
        if not present:
            continue
        logits_IK = torch.tensor([row["logits"][i] for i in present], dtype=torch.float64)
        if labeled.temperatures is not None:
            logits_IK /= torch.tensor([labeled.temperatures[i] for i in present], dtype=torch.float64)[:, None]
        if confidence:
            target_IK = logits_IK.softmax(dim=-1)
        else:
            target_IK = torch.nn.functional.one_hot(logits_IK.argmax(dim=-1), logits_IK.shape[-1]).double()
        mixed_K = mix_targets(target_IK, torch.tensor([labeled.weights[i] for i in present], dtype=torch.float64))
        made = TrainingRow(id=row["id"], prompt=labeled.prompts[row["id"]], probabilities=mixed_K.tolist())
        if per_teacher:
            own = dict(zip(present, target_IK.tolist(), strict=True))
            made["by_teacher"] = [own.get(i) for i in range(len(row["logits"]))]
        rows.append(made)
    return rows


class OwnCandidate(TypedDict):
    """A text of the student's own beams: `reference` its summed log-probability under the fine-tuned student."""

    text: str
    reference: float
    words: list[list[float]]
    tokens: list[int]


def preference_pairs(
    prompts: Mapping[int, str], candidates: Mapping[int, Sequence[OwnCandidate]], weights: Sequence[float], score: Score
) -> list[TrainingRow]:
    """Chosen = arg-max, rejected = arg-min of the teachers' weighted score over the student's own beams (Eq. 10, 11).

    In the order of `candidates`. A prompt whose best equals its worst gives no pair.
    """
    rows = []
    for i, own in candidates.items():
        scores = [candidate_score(c["words"], c["tokens"], weights, score) for c in own]
        order = range(len(scores))
        chosen = own[max(order, key=lambda k: (scores[k], -k))]
        rejected = own[min(order, key=lambda k: (scores[k], k))]
        if max(scores) > min(scores):
            rows.append(
                TrainingRow(
                    id=i,
                    prompt=prompts[i],
                    chosen=chosen["text"],
                    rejected=rejected["text"],
                    ref_chosen=chosen["reference"],
                    ref_rejected=rejected["reference"],
                    margin=max(scores) - min(scores),
                )
            )
    return rows


def _by_prompt(table: Sequence[CandidateRow]) -> Iterator[tuple[int, list[CandidateRow]]]:
    for i, group in itertools.groupby(table, key=lambda row: row["id"]):
        yield i, list(group)


def _text_target(given: Sequence[tuple[int, CandidateRow, float]], confidence: bool) -> TextTarget:
    target = TextTarget(text=given[0][1]["text"], weights=[weight for _, _, weight in given])
    if confidence:
        sure = [0.0] * (len(words(target["text"])) + 1)
        target["word_logprobs"] = [candidate["words"][teacher] or sure for teacher, candidate, _ in given]
    return target
