"""What a loss is: its section of the config, its schedule, and its formula over tokens and over classes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from raw2s.losses import EvidenceOf
from raw2s.losses.heads import TokenProb
from raw2s.section import Section

Outcome = tuple[torch.Tensor, dict[str, torch.Tensor]]
"""The loss summed over tokens, rows or pairs, and what is logged beside it, summed too."""
Coefficients = Mapping[str, float]
"""What a schedule gives at one step, such as gamma; logged under these names."""


class LossSection(Section):
    """What a loss may be told; goes whole from the config to the worker."""

    name: str
    """Which loss: one that `raw2s losses` lists, or module:name of one outside the package."""


@dataclass(frozen=True, kw_only=True)
class TokenTargets:
    """N target tokens, of all sequences end to end."""

    token_N: torch.Tensor
    token_prob: TokenProb | None
    """P(s), the teachers' probability of each token, or how it follows from the student's largest probabilities (Eq. 7-8)."""
    row_weight_N: torch.Tensor
    """The summed weight of the teachers behind the token's sequence."""


@dataclass(frozen=True, kw_only=True)
class PairTargets:
    """P preference pairs: the policy's summed log-probabilities (differentiable) and the reference's, chosen first."""

    policy_P2: torch.Tensor
    reference_P2: torch.Tensor
    teacher_margin_P: torch.Tensor
    """The teachers' weighted score of the chosen text less that of the rejected (Eq. 10, 11), above 0."""


OverTokens = Callable[[nn.Module, torch.Tensor, TokenTargets, Any, Coefficients], Outcome]
"""(`FusedHead`, hidden_NH, targets, section, coefficients) -> outcome; run the head with `head(function, hidden_NH, ...)`."""
OverClasses = Callable[[torch.Tensor, torch.Tensor, Any, Coefficients], Outcome]
"""(logits_PK, target_PK, section, coefficients) -> outcome; the teachers' probabilities come already mixed, a Dirichlet's as its counts."""
OverPairs = Callable[[PairTargets, Any], Outcome]


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A loss as plain functions of its section; None where it has no formula of that kind."""

    section: type[LossSection]
    title: Callable[[Any], str]
    """As tables write it, such as `EDL`."""
    card: Callable[[Any], str]
    """In a model card's sentence «trained with ...»."""
    coefficients: Callable[[Any, int, int], Coefficients]
    """(section, step from 0, total steps) -> what the schedule gives."""
    linear: Callable[[Any], bool]
    """Whether it is linear in the target, so that teachers who gave one text may share one sequence."""
    over_tokens: OverTokens | None
    over_classes: OverClasses | None
    over_pairs: OverPairs | None = None
    evidence: Callable[[Any], EvidenceOf] | None = None
    """Of a loss whose student says a Dirichlet: its section -> the evidence of logits. None: the student says a softmax."""
    about: str = ""
    """What `raw2s losses` says of it; empty: the first line of its file."""

    def __post_init__(self) -> None:
        if not (self.over_tokens or self.over_classes or self.over_pairs):
            raise ValueError("a loss needs a formula: give over_tokens, over_classes or over_pairs")


def no_schedule(section: LossSection, step: int, total_steps: int) -> Coefficients:
    """The `coefficients` of a loss whose formula is the same at every step."""
    return {}
