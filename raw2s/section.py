"""What every section of a config is made of, and which of its settings decide what comes out."""

import re
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[\w.-]+$")]
"""What may be part of a stage's name and of a folder's."""


class Section(BaseModel):
    """Typed settings; a field is documented by the text under it, which `--help` prints."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )


class Placement(Section):
    """Where and how safely work runs. It changes no more of what comes out than its rounding, so it is in no artifact's key."""


def _selecting(value: str) -> str:
    if not re.fullmatch(r"!?([\w.-]+|in\([\w.-]+(, ?[\w.-]+)*\))", value):
        raise ValueError(f"{value!r} selects no label; write a value, !value, in(a, b) or !in(a, b)")
    return value.replace(" ", "")  # which Ray takes for a part of the next value


LabelSelector = dict[str, Annotated[str, AfterValidator(_selecting)]]
"""By the key of a Ray node's label which values of it will do."""


def _ordered(replicas: tuple[int, int]) -> tuple[int, int]:
    if replicas[0] > replicas[1]:
        raise ValueError(f"{list(replicas)}: more at least than at most; give the smaller number first")
    return replicas


class Actors(Placement):
    """The Ray Data actors of one model, and what each of them reserves."""

    num_cpus: Annotated[float, Field(gt=0)] = 1
    """Ray CPUs of one actor that labels, scores or decodes with this model."""
    num_gpus: Rate = 0
    """Ray GPUs of one such actor; a fraction shares one."""
    replicas: Annotated[tuple[Positive, Positive], AfterValidator(_ordered)] = (1, 1)
    """Fewest and most such actors."""
    resources: dict[str, Annotated[float, Field(gt=0)]] | None = None
    """Custom Ray resources of one such actor, such as {teaching: 1}."""
    label_selector: LabelSelector | None = None
    """Labels that the Ray nodes of these actors must have, such as {pool: teach} or {ray.io/accelerator-type: "in(L4, T4)"}."""


S = TypeVar("S", bound=Section)


def part(section: Section, base: type[S]) -> S:
    """The settings that `section` inherits from `base`, alone."""
    return base(**{name: getattr(section, name) for name in base.model_fields})


def settings_of(section: Section) -> dict[str, Any]:
    """What of a section decides what comes out, as plain data: all but what its classes inherit from a `Placement`."""
    bases = [base for base in type(section).__mro__ if issubclass(base, Placement) and Placement in base.__bases__]
    placed = {name for base in bases for name in base.model_fields}
    dumped = section.model_dump(mode="json", exclude=placed)
    values = {name: getattr(section, name) for name in dumped}
    return {name: settings_of(v) if isinstance(v := values[name], Section) else dumped[name] for name in dumped}
