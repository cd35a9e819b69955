"""How certain logits are, in four measures: of a softmax, and of the Dirichlet of an evidential student.

An evidential student says Dir(α), α = e + 1, S = Σ α, and its prediction is the mean α / S; any other's is softmax(z).

    choice               -log p_k of the class or token that was chosen, the likeliest unless said otherwise
    entropy              H[p]
    vacuity              K / S                         Dirichlet only; in (0, 1] for e ≥ 0
    mutual_information   H[p] - E_Dir H[π]             Dirichlet only

Vacuity is the share of the prior in the evidence. It is no measure of what more data would teach (Shen et al., 2024, arXiv
2402.06160), and it moves with K, so it compares no two vocabularies (McNamara, 2026, arXiv 2605.06382).
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from raw2s.losses.conventions import at_least_float32

EvidenceOf = Callable[[Tensor], Tensor]
"""Logits (..., K) -> evidence e (..., K), fp32 at least; above -1, and not below 0 for EDL."""

MEASURES = ("choice", "entropy", "vacuity", "mutual_information")
DROPOUT_MEASURES = ("dropout_entropy", "dropout_mutual_information")
"""`mixture_doubts` of one model, asked several times with dropout on."""
_SERIES_FROM = 16.0
"""Above it digamma(x + 1) - log x cancels in fp32, and its series of three terms errs by 1e-10."""


def log_prediction(logits: Tensor, evidence: EvidenceOf | None) -> Tensor:
    """Log-probabilities of a student's prediction: (..., K), fp32 at least; `evidence` None for a softmax."""
    if evidence is None:
        return at_least_float32(logits).log_softmax(-1)
    log_alpha = evidence(logits).log1p()
    return log_alpha - log_alpha.logsumexp(-1, keepdim=True)


def doubts(logits: Tensor, evidence: EvidenceOf | None, chosen: Tensor | None = None) -> dict[str, Tensor]:
    """The measures of logits (..., K) by name, in the order of `MEASURES`: (...) each, larger where the student is less certain.

    In nats, but for vacuity. `chosen` (...) are indices; None for the likeliest.
    """
    log_p = log_prediction(logits, evidence)
    p = log_p.exp()
    choice = log_p.amax(-1) if chosen is None else log_p.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
    found = {"choice": -choice, "entropy": -(p * log_p.clamp(min=torch.finfo(p.dtype).min)).sum(-1)}
    if evidence is None:
        return found
    alpha = 1 + evidence(logits)
    strength = alpha.sum(-1)
    mutual_information = (p * _log_excess(alpha)).sum(-1) - _log_excess(strength)
    return found | {"vacuity": alpha.shape[-1] / strength, "mutual_information": mutual_information.clamp(min=0)}


def mixture_doubts(members: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """H of the mean of the members' predictions, and by how much it exceeds their mean H, which they disagree about: (...) each.

    In nats. The members are log-probabilities (..., K), at least one; only one need exist at a time.
    """
    total_p, total_entropy, count = torch.zeros(()), torch.zeros(()), 0
    for log_p in members:
        p = log_p.exp()
        total_p, total_entropy, count = total_p + p, total_entropy + torch.special.entr(p).sum(-1), count + 1
    entropy = torch.special.entr(total_p / count).sum(-1)
    return entropy, (entropy - total_entropy / count).clamp(min=0)


def _log_excess(x: Tensor) -> Tensor:
    """digamma(x + 1) - log x for x > 0; E_Dir H[π] is the mean of -log p less that of this."""
    series = 1 / (2 * x) - 1 / (12 * x**2) + 1 / (120 * x**4)
    return torch.where(x < _SERIES_FROM, torch.digamma(x + 1) - x.log(), series)
