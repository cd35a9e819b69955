"""The mathematics of weak-to-strong training: losses, targets and schedules; pure torch."""

from raw2s.losses.confidence import balance_threshold, gamma_at, kl_annealing_at, mix_with_own_prediction
from raw2s.losses.cross_entropy import cross_entropy, soft_label, soft_label_cross_entropy
from raw2s.losses.doubt import EvidenceOf, doubts, log_prediction, mixture_doubts
from raw2s.losses.edl import edl_loss, edl_terms, evidence_of
from raw2s.losses.ensemble import mix_targets
from raw2s.losses.heads import FusedHead, HeadLoss, linear_cross_entropy, linear_edl_loss, linear_log_probs
from raw2s.losses.linear_loss import linear_loss
from raw2s.losses.preference import cdpo_loss, sequence_log_probs

__all__ = [
    "EvidenceOf",
    "FusedHead",
    "HeadLoss",
    "balance_threshold",
    "cdpo_loss",
    "cross_entropy",
    "doubts",
    "edl_loss",
    "edl_terms",
    "evidence_of",
    "gamma_at",
    "kl_annealing_at",
    "linear_cross_entropy",
    "linear_edl_loss",
    "linear_log_probs",
    "linear_loss",
    "log_prediction",
    "mix_targets",
    "mix_with_own_prediction",
    "mixture_doubts",
    "sequence_log_probs",
    "soft_label",
    "soft_label_cross_entropy",
]
