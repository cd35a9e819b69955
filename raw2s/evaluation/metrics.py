"""The metrics a task may name: each as counts an example, whose mean gives the score, so that a bootstrap is one matrix product."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raw2s.evaluation.slu_f1 import f1_of_counts, slu_f1_counts

Counts = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """`counts(gold, predicted)` gives one row an example, (U, C); `score` maps the mean of such rows, (..., C), to [0, 1]."""

    name: str
    title: str
    """As tables write it."""
    counts: Callable[[Sequence[Any], Sequence[Any]], Counts]
    score: Callable[[Counts], Counts]


def errors(metric: Metric, gold: Sequence[Any], counts_UC: Counts) -> NDArray[np.bool_]:
    """(U,): whether the metric counts an answer otherwise than gold itself."""
    return np.asarray(~np.isclose(counts_UC, metric.counts(gold, gold)).all(axis=1))


def example_scores(metric: Metric, gold: Sequence[Any], counts_UC: Counts) -> Counts:
    """(U,): the score of each example alone, for a sign test; 1 for the answer that is gold.

    SLU-F1 has 0 there for rightly naming no slot, since it divides 0 by 0: no better than a false alarm.
    """
    return np.where(errors(metric, gold, counts_UC), metric.score(counts_UC), 1.0)


def share_correct(gold: Sequence[Any], predicted: Sequence[Any]) -> Counts:
    """(U, 1): 1 where the two are equal."""
    return np.array([[float(g == p)] for g, p in zip(gold, predicted, strict=True)]).reshape(-1, 1)


def _first(counts: Counts) -> Counts:
    return counts[..., 0]


def macro_f1(classes: Sequence[str]) -> Metric:
    """The mean over the classes of their F1, as scikit-learn's `f1_score(average="macro", labels=classes, zero_division=0)`.

    Of a class that neither gold nor predictions hold, F1 is 0.
    """
    place = {name: index for index, name in enumerate(classes)}

    def counts(gold: Sequence[Any], predicted: Sequence[Any]) -> Counts:
        """(U, 3K): true positives, predicted, gold, a class each."""
        rows = np.zeros((len(gold), 3, len(place)))
        for row, g, p in zip(rows, gold, predicted, strict=True):
            row[2, place[g]] = 1
            if p in place:
                row[1, place[p]] = 1
                row[0, place[p]] = float(g == p)
        return rows.reshape(len(gold), -1)

    def score(mean: Counts) -> Counts:
        hit, said, true = np.moveaxis(mean.reshape(*mean.shape[:-1], 3, len(place)), -2, 0)
        return np.divide(2 * hit, said + true, out=np.zeros_like(hit), where=said + true > 0).mean(axis=-1)

    return Metric(name="macro_f1", title="macro F1", counts=counts, score=score)


def _rouge_l_counts(gold: Sequence[str], predicted: Sequence[str]) -> Counts:
    """(U, 1): the F-measure of ROUGE-L (Lin, 2004) by Google's rouge-score, with stemming."""
    from rouge_score.rouge_scorer import RougeScorer  # an extra  # noqa: PLC0415

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    return np.array([[scorer.score(g, p)["rougeL"].fmeasure] for g, p in zip(gold, predicted, strict=True)]).reshape(-1, 1)


SLU_F1 = Metric(name="slu_f1", title="SLU-F1", counts=slu_f1_counts, score=f1_of_counts)
ACCURACY = Metric(name="accuracy", title="accuracy", counts=share_correct, score=_first)
EXACT_MATCH = Metric(name="exact_match", title="exact match", counts=share_correct, score=_first)
ROUGE_L = Metric(name="rouge_l", title="ROUGE-L", counts=_rouge_l_counts, score=_first)
