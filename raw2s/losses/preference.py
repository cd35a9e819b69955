"""Preference learning from the weak teachers' ranking (section 4.3)."""

import torch.nn.functional as F
from torch import Tensor

from raw2s.losses.conventions import Reduction, at_least_float32, reduce_loss


def sequence_log_probs(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """log f(y): the summed log-probability of each completion, in nats: (B, T, V), (B, T), (B, T) -> (B,).

    `logits[b, t]` predict `tokens[b, t]` (the caller has shifted them); `mask` is True on the completion, end marker included.
    """
    log_p = at_least_float32(logits).log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    return log_p.masked_fill(~mask.bool(), 0.0).sum(-1)


def cdpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    *,
    beta: float,
    label_smoothing: float,
    reduction: Reduction = "mean",
) -> Tensor:
    """Conservative DPO (Eq. 9, 12): -(1 - ε) log σ(m) - ε log σ(-m), m = β [(chosen - ref_chosen) - (rejected - ref_rejected)].

    All (...): summed completion log-probabilities in nats, end marker included. ε is `label_smoothing`, the probability that the
    teachers' preference is wrong; 0 is DPO. Raises ValueError for ε outside [0, 0.5].
    """
    if not 0 <= label_smoothing <= 0.5:
        raise ValueError(f"label_smoothing is {label_smoothing}; it must lie in [0, 0.5]")
    chosen_ratio = at_least_float32(chosen) - at_least_float32(ref_chosen)
    rejected_ratio = at_least_float32(rejected) - at_least_float32(ref_rejected)
    margin = beta * (chosen_ratio - rejected_ratio)
    loss = -(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)
    return reduce_loss(loss, reduction)
