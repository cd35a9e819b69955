"""RAVEN: the teachers' weights are learned on the simplex together with the student (Jeon et al. 2025, arXiv 2510.21332).

First, for a share of the steps, only the rows on which all teachers agree are learned from, and the weights rest. Then both go
downhill on the loss against the teachers' labels mixed with their weights: for a loss linear in the target, such as cross entropy,
its gradient by a weight is that teacher's own loss. The authors' code subtracts it and renormalizes, which drives equally good
teachers apart; here the weights take exponentiated steps, which leave them where they are. A teacher whose labels the student, led
by the others, finds likely gains weight, without ground truth.
"""

from typing import Annotated

from pydantic import Field

from raw2s.labels.rows import TrainingRow
from raw2s.labels.targets import Labeled, class_rows, text_rows
from raw2s.methods.learned import LearnedWeights
from raw2s.methods.method import Method, MethodSection, with_loss_weights
from raw2s.section import Fraction


class RavenSection(MethodSection):
    weight_rate: Annotated[float, Field(gt=0)] = 0.1
    """Step size of the teachers' weights, per nat of a teacher's mean loss; they start from `weights.loss`."""
    agreement_fraction: Fraction = 0.2
    """Share of the steps in which only rows count whose teachers agree (the authors try 0.1, 0.2 and 0.5)."""


def _from_text(labeled: Labeled, section: RavenSection) -> list[TrainingRow]:
    return text_rows(labeled, confidence=section.confidence, per_teacher=True)


def _from_classes(labeled: Labeled, section: RavenSection) -> list[TrainingRow]:
    return class_rows(labeled, confidence=section.confidence, per_teacher=True)


def _learned(section: RavenSection, labeled: Labeled) -> LearnedWeights:
    return LearnedWeights(
        teachers=tuple(labeled.teachers),
        start=tuple(labeled.weights),
        rate=section.weight_rate,
        agreement_fraction=section.agreement_fraction,
    )


RAVEN = Method(
    section=RavenSection,
    title=lambda section: "RAVEN",
    label=lambda section: "raven",
    loss="ce",
    weights=with_loss_weights,
    from_text=_from_text,
    from_classes=_from_classes,
    learned=_learned,
)
