"""What a method is: which of the teachers' labels a student learns from, with which weights, and by which loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from raw2s.choices import Chosen, chosen
from raw2s.labels.crowd import CrowdMethod
from raw2s.labels.rows import TrainingRow
from raw2s.labels.targets import Labeled, class_rows, text_rows
from raw2s.losses import EvidenceOf
from raw2s.methods.cross_entropy import CROSS_ENTROPY
from raw2s.methods.cw_preference import CW_CDPO
from raw2s.methods.dirichlet import DIRICHLET
from raw2s.methods.evidential import EVIDENTIAL
from raw2s.methods.learned import LearnedWeights
from raw2s.methods.loss import Loss, LossSection
from raw2s.methods.preference import CDPO
from raw2s.methods.reverse import REVERSE_CE, REVERSE_KL
from raw2s.section import Placement

LOSSES: dict[str, Loss] = {
    "ce": CROSS_ENTROPY,
    "edl": EVIDENTIAL,
    "reverse_ce": REVERSE_CE,
    "reverse_kl": REVERSE_KL,
    "dirichlet": DIRICHLET,
}
PREFERENCE_LOSSES: dict[str, Loss] = {"cdpo": CDPO, "cw_cdpo": CW_CDPO}

Weights = dict[str, float] | Literal["devel"]
"""By teacher's name, summing to one; `devel`: those fitted on the validation examples."""


class OwnValues(Placement):
    """What an entry puts over the run's sections for itself; in no key, for stages hold the sections that come of it."""

    weights: dict[str, Any] = Field(default={})
    """Over `weights` key by key, for this entry alone: {loss: [1, 1, 2]}."""
    training: dict[str, Any] = Field(default={})
    """Over `student_training` key by key, for this entry alone: {learning_rate: 1.0e-3}."""
    preference: dict[str, Any] = Field(default={})
    """Over `preference` key by key, for this entry alone: {training: {epochs: 2}}."""


class MethodSection(OwnValues):
    """What every method may be told; a method's own section adds its knobs."""

    method: str = "bayesian"
    """Whose labels are learned, and how: one that `raw2s methods` lists, or module:name of one outside the package."""
    loss: Annotated[LossSection, Chosen("name", LOSSES, Loss)]
    """The loss and its knobs; by default the method's own: EDL for bayesian, dirichlet for moments, cross entropy for the others."""
    confidence: bool = True
    """Soft labels from the teachers' confidence (section 4.2; class probabilities in classification); otherwise hard labels."""
    cdpo: bool = False
    """Follow with conservative DPO (section 4.3), set under `preference`; text only."""

    @model_validator(mode="before")
    @classmethod
    def _usual_loss(cls, tree: Any) -> Any:
        """A loss without a name is the method's own."""
        if not isinstance(tree, dict) or isinstance(tree.get("loss"), (str, LossSection)):
            return tree
        name = tree.get("method", cls.model_fields["method"].default)
        return {**tree, "loss": {"name": chosen(METHODS, name, Method).loss, **(tree.get("loss") or {})}}


@dataclass(frozen=True, kw_only=True)
class GivenWeights:
    """The weights that a config gives, by use; `joint` of the teachers that can be asked for scores where labels are texts."""

    names: tuple[str, ...]
    """Of all teachers, in the config's order."""
    loss: Weights
    joint: dict[str, float]


MakeRows = Callable[[Labeled, Any], list[TrainingRow]]
"""(B as labeled, the method's section) -> a row a prompt; prompts without a label give none."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method as plain functions of its section; None where it makes nothing of labels of that form."""

    section: type[MethodSection]
    title: Callable[[Any], str]
    """As tables write it, without the loss."""
    label: Callable[[Any], str]
    """Short, for names of stages: `single:gpt2`."""
    loss: str
    """The name of its usual loss."""
    weights: Callable[[Any, GivenWeights], Weights]
    """Only the weights that it reads: others must not change the student's key."""
    from_text: MakeRows | None
    from_classes: MakeRows | None
    crowd: CrowdMethod | None = None
    """The crowd-kit aggregator that combines the votes first (classes), into a table of one teacher called like the method."""
    learned: Callable[[Any, Labeled], LearnedWeights] | None = None
    """(section, B as labeled) -> how the weights are learned while the student trains; its rows are made with `per_teacher`."""
    about: str = ""
    """What `raw2s methods` says of it; empty: the first line of its file."""

    def __post_init__(self) -> None:
        if not (self.from_text or self.from_classes):
            raise ValueError("a method needs labels to learn from: give from_text, from_classes or both")


METHODS: dict[str, Method] = {}
"""Filled by `raw2s.methods`, whose files import this one."""


def loss_of(section: LossSection) -> Loss:
    """What `LOSSES`, `PREFERENCE_LOSSES` or a module outside the package holds under the section's name."""
    return chosen(LOSSES | PREFERENCE_LOSSES, section.name, Loss)


def evidence_by(section: LossSection | None) -> EvidenceOf | None:
    """How the logits of a student of this loss are read as a Dirichlet's; None where they are a softmax's."""
    evidence = None if section is None else loss_of(section).evidence
    return None if evidence is None else evidence(section)


def method_of(section: MethodSection) -> Method:
    """What `METHODS`, or a module outside the package, holds under the section's name."""
    return chosen(METHODS, section.method, Method)


def label_of(section: MethodSection) -> str:
    """`bayesian`, `single:gpt2`, `joint+edl`: the method as results.json names it; another loss than the usual follows a +."""
    method = method_of(section)
    name = method.label(section)
    return name if section.loss.name == method.loss else f"{name}+{section.loss.name}"


def title_of(section: MethodSection) -> str:
    """`joint decoding (EDL)`: the method and its loss, as tables write them."""
    return f"{method_of(section).title(section)} ({loss_of(section.loss).title(section.loss)})"


def with_loss_weights(section: MethodSection, given: GivenWeights) -> Weights:
    """`weights.loss`, for methods that mix all teachers' labels (Eq. 2, 4)."""
    return given.loss


def own_texts(labeled: Labeled, section: MethodSection) -> list[TrainingRow]:
    """Every teacher's own best text, with the teacher's weight."""
    return text_rows(labeled, confidence=section.confidence)


def mixed_classes(labeled: Labeled, section: MethodSection) -> list[TrainingRow]:
    """The teachers' class probabilities, mixed with their weights."""
    return class_rows(labeled, confidence=section.confidence)
