"""The auxiliary confidence loss (Eq. 1, 5) as a change of target, and the schedules over the run.

Cross entropy and the EDL loss `expected` are linear in the target, so (1 - γ) L(y) + γ L(ŷ) = L((1 - γ) y + γ ŷ).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from raw2s.losses.conventions import at_least_float32

GammaSchedule = Literal["linear", "authors"]


def gamma_at(
    step: int, total_steps: int, gamma_max: float, *, warmup_fraction: float = 1.0, schedule: GammaSchedule = "linear"
) -> float:
    """γ of Eq. 1 and 5 at `step` of `total_steps`.

    `linear` rises from 0 to `gamma_max` over `warmup_fraction` of the run and stays there (the paper, section 3.1).
    `authors` is their code: gamma_max · step/total_steps up to `warmup_fraction` (theirs: 0.25), then gamma_max at once.
    Raises ValueError for another schedule, a fraction outside [0, 1] or a run without steps.
    """
    ramp = kl_annealing_at(step, total_steps, warmup_fraction)
    match schedule:
        case "linear":
            return gamma_max * ramp
        case "authors":
            done = step / total_steps
            return gamma_max * (1.0 if done > warmup_fraction else done)
    raise ValueError(f"schedule is {schedule!r}; it must be 'linear' or 'authors'")


def kl_annealing_at(step: int, total_steps: int, fraction: float) -> float:
    """λ_t of App. B relative to its final value: linear from 0 to 1 over `fraction` of the run, then 1; 1 throughout for 0.

    Raises ValueError for a fraction outside [0, 1] or a run without steps.
    """
    if total_steps <= 0:
        raise ValueError(f"total_steps is {total_steps}; it must be positive")
    if not 0 <= fraction <= 1:
        raise ValueError(f"the fraction of the run is {fraction}; it must lie in [0, 1]")
    return min(1.0, step / (total_steps * fraction)) if fraction else 1.0


@torch.no_grad()
def mix_with_own_prediction(target: Tensor, logits: Tensor, gamma: float) -> Tensor:
    """(1 - γ) target + γ onehot(argmax logits), a constant (Eq. 1, 5): (..., K) probabilities, (..., K) logits -> (..., K)."""
    own = logits.argmax(-1, keepdim=True)
    mixed = (1 - gamma) * at_least_float32(target)
    return mixed.scatter_add(-1, own, torch.full_like(mixed[..., :1], gamma))


@torch.no_grad()
def balance_threshold(logits: Tensor, target: Tensor) -> Tensor:
    """The student's two-class predictions at the threshold that keeps the weak labels' class share: (B, 2), (B, 2) -> (B, 2).

    One-hot, to be mixed into the target in place of the arg-max. The rule of openai/weak-to-strong: class 0 where its probability
    reaches the quantile given by the batch's mean weak probability of class 1. Raises ValueError unless there are two classes.
    """
    if logits.shape != target.shape or logits.dim() != 2 or logits.shape[-1] != 2:
        raise ValueError(f"logits {tuple(logits.shape)} and target {tuple(target.shape)} must both be (batch, 2)")
    prob_0 = at_least_float32(logits).softmax(-1)[:, 0]
    threshold = prob_0.quantile(target[:, 1].to(prob_0.dtype).mean())
    return F.one_hot((prob_0 < threshold).long(), 2).to(prob_0.dtype)
