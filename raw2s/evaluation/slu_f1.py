"""SLU-F1 (Bastianelli et al., SLURP, EMNLP 2020; section 5.2 of the paper), as the official SLURP scorer computes it.

A predicted entity of the right type is a full true positive, and the distance of its value from the gold value is added to
both the false positives and the false negatives. This is done once with a distance over words and once with one over
characters; SLU-F1 is the F1 of the two counts together (not the mean of two F1s).
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

Entity = Sequence[str]
"""(type, value)."""
Corpus = Sequence[Sequence[Entity]]
"""Utterances, each with its entities in order."""
Charge = tuple[float, float, float]
"""What one entity adds to (TP, FP, FN)."""


class SluF1(NamedTuple):
    """Fractions in [0, 1]."""

    precision: float
    recall: float
    f1: float


def slu_f1(gold: Corpus, predicted: Corpus, *, average: Literal["micro", "macro"] = "micro") -> SluF1:
    """SLU-F1 of a corpus; utterance i of `predicted` answers utterance i of `gold`.

    Values are compared as they are: gold values of SLURP are lower-case tokens joined by spaces. "micro" sums the counts over
    all types, "macro" is the unweighted mean of each type's scores. A score whose denominator is 0 is 0.

    Raises ValueError for corpora of different lengths, an empty gold value or another `average`, and ZeroDivisionError, as the
    official scorer does, for the macro average of a corpus without any entity.
    """
    if average == "micro":
        counts_3 = slu_f1_counts(gold, predicted).sum(axis=0)
        return SluF1(*(float(score) for score in _scores(counts_3)))
    if average != "macro":
        raise ValueError(f'average is {average!r}. Use "micro" or "macro".')
    counts_by_type: defaultdict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(3))
    for _, entity_type, charge in _charges(gold, predicted):
        counts_by_type[entity_type] += charge
    if not counts_by_type:
        raise ZeroDivisionError("The macro average runs over types, and the corpus holds no entity. Use the micro average.")
    counts_L3 = np.stack(list(counts_by_type.values()))
    return SluF1(*(float(score_L.mean()) for score_L in _scores(counts_L3)))


def slu_f1_counts(gold: Corpus, predicted: Corpus) -> NDArray[np.float64]:
    """TP, FP and FN of every utterance, word and character counts summed: (utterances, 3), to resample or to test.

    Raises ValueError for corpora of different lengths and for an empty gold value.
    """
    counts_U3 = np.zeros((len(gold), 3))
    for utterance, _, charge in _charges(gold, predicted):
        counts_U3[utterance] += charge
    return counts_U3


def f1_of_counts(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """F1 of (..., 3) counts of TP, FP and FN: (...); 0 where there is nothing to divide by."""
    return _scores(counts)[2]


def _scores(counts: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Precision, recall and F1 of (..., 3) counts."""
    tp, fp, fn = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    return _ratio(tp, tp + fp), _ratio(tp, tp + fn), _ratio(2 * tp, 2 * tp + fp + fn)


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)


def _charges(gold: Corpus, predicted: Corpus) -> Iterator[tuple[int, str, Charge]]:
    """(utterance, type, charge) of every entity, under each of the two distances."""
    if len(gold) != len(predicted):
        raise ValueError(
            f"There are {len(gold)} gold utterances but {len(predicted)} predicted ones. "
            "Give one list of entities per gold utterance, empty where nothing was predicted."
        )
    for utterance, (gold_entities, predicted_entities) in enumerate(zip(gold, predicted, strict=True)):
        # The official scorer notices this only if the type is also predicted; a broken corpus should fail in every run.
        if not all(value.strip() for _, value in gold_entities):
            raise ValueError(f"A gold value of utterance {utterance} is empty. Drop the entity, or give the words it covers.")
        for distance in (_word_distance, _character_distance):
            for entity_type, charge in _match(gold_entities, predicted_entities, distance):
                yield utterance, entity_type, charge


def _match(
    gold: Sequence[Entity], predicted: Sequence[Entity], distance: Callable[[str, str], float]
) -> Iterator[tuple[str, Charge]]:
    """Each prediction, in order, takes the closest gold entity of its type still left (ties: the first): greedy, not optimal."""
    remaining = list(gold)
    for entity_type, value in predicted:
        candidates = [
            (distance(gold_value, value), index)
            for index, (gold_type, gold_value) in enumerate(remaining)
            if gold_type == entity_type
        ]
        if candidates:
            closest, index = min(candidates)
            del remaining[index]
            yield entity_type, (1.0, closest, closest)
        else:
            yield entity_type, (0.0, 1.0, 0.0)
    for entity_type, _ in remaining:
        yield entity_type, (0.0, 0.0, 1.0)


def _word_distance(gold: str, predicted: str) -> float:
    """Word error rate: edits per gold word, so above 1 for a prediction that is long and wrong."""
    gold_words = _words(gold)
    return Levenshtein.distance(gold_words, _words(predicted)) / len(gold_words)


def _words(value: str) -> list[str]:
    # As jiwer 2.0 splits: runs of white space become one space, but a single tab or line break stays inside its word.
    return re.sub(r"\s\s+", " ", value).strip().split(" ")


def _character_distance(gold: str, predicted: str) -> float:
    """Edits per character of the longer value, in [0, 1]; spaces count."""
    return Levenshtein.normalized_distance(gold, predicted)
