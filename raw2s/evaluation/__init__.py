"""How good a labeling is, how much of the gap a student recovered, and how sure of both one may be."""

from raw2s.evaluation.gap import performance_gap_recovered
from raw2s.evaluation.intervals import (
    crossed_bootstrap,
    drawn_seeds,
    drawn_utterances,
    gap_is_noise,
    gap_recovered_interval,
    interval,
    paired_bootstrap,
    sign_test,
    standard_error,
)
from raw2s.evaluation.slu_f1 import SluF1, f1_of_counts, slu_f1, slu_f1_counts

__all__ = [
    "SluF1",
    "crossed_bootstrap",
    "drawn_seeds",
    "drawn_utterances",
    "f1_of_counts",
    "gap_is_noise",
    "gap_recovered_interval",
    "interval",
    "paired_bootstrap",
    "performance_gap_recovered",
    "sign_test",
    "slu_f1",
    "slu_f1_counts",
    "standard_error",
]
