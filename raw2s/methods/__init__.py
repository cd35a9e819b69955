"""How a student learns from several weak labelers: one file a method, one a loss, and here the names a config knows them by."""

from typing import Annotated

from raw2s.choices import Chosen
from raw2s.methods.bayesian import BAYESIAN
from raw2s.methods.crowd import DAWID_SKENE, MACE, MAJORITY
from raw2s.methods.joint import JOINT
from raw2s.methods.loss import Loss, LossSection
from raw2s.methods.method import (
    LOSSES,
    METHODS,
    PREFERENCE_LOSSES,
    GivenWeights,
    Method,
    MethodSection,
    evidence_by,
    label_of,
    loss_of,
    method_of,
    title_of,
)
from raw2s.methods.moments import MOMENTS
from raw2s.methods.naive import NAIVE
from raw2s.methods.raven import RAVEN
from raw2s.methods.single import SINGLE

__all__ = [
    "LOSSES",
    "METHODS",
    "PREFERENCE_LOSSES",
    "AnyMethod",
    "AnyPreferenceLoss",
    "GivenWeights",
    "Loss",
    "LossSection",
    "Method",
    "MethodSection",
    "evidence_by",
    "label_of",
    "loss_of",
    "method_of",
    "title_of",
]

METHODS.update(
    single=SINGLE,
    naive=NAIVE,
    joint=JOINT,
    bayesian=BAYESIAN,
    raven=RAVEN,
    moments=MOMENTS,
    majority=MAJORITY,
    dawid_skene=DAWID_SKENE,
    mace=MACE,
)

AnyMethod = Annotated[MethodSection, Chosen("method", METHODS, Method, default="bayesian")]
"""An entry of the config's `methods`: the section of the method it names."""

AnyPreferenceLoss = Annotated[LossSection, Chosen("name", PREFERENCE_LOSSES, Loss, default="cdpo")]
"""The config's section `preference.loss`."""
