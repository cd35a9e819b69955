"""What varies - task, method, loss, teacher - is a frozen object under a name; the one that a section names brings the section.

A registry is a plain dict. Its keys are the config's choices; `module:name` takes an object from outside the package.
"""

import difflib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pydantic_core import core_schema

from raw2s.section import Section

T = TypeVar("T")


class Choice(Protocol):
    """What a registry holds: an object with the section of its own knobs."""

    @property
    def section(self) -> type[Section]: ...


def chosen(registry: Mapping[str, T], name: str, what: type[T]) -> T:
    """The object called `name`; `module:name` is imported. Raises ValueError, in one line with the known names, where there is none."""
    if name in registry:
        return registry[name]
    if ":" not in name:
        close = difflib.get_close_matches(name, registry, n=1)
        advice = f"did you mean {close[0]}?" if close else f"name one of {', '.join(registry)}, or module:name"
        raise ValueError(f"{name!r} is unknown; {advice}")
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{name!r} cannot be imported ({error}); correct it, or put its folder on PYTHONPATH") from None
    if not isinstance(found, what):
        raise ValueError(f"{name!r} is a {type(found).__name__} and no {what.__name__}; name a {what.__name__} object")
    return found


@dataclass(frozen=True)
class Chosen:
    """Marks a field whose section is that of the object which the section's own `key` names: `Annotated[Base, Chosen(...)]`."""

    key: str
    registry: Mapping[str, Any]
    what: type[Any]
    default: str | None = None
    """The name where the section gives none; None: it must give one."""

    def section(self, tree: Mapping[str, Any]) -> type[Section]:
        """The section class for a tree as YAML gives it. Raises ValueError."""
        name = tree.get(self.key, self.default)
        if not isinstance(name, str):
            raise ValueError(f"{self.key} is missing; name one of {', '.join(self.registry)}")
        found: Choice = chosen(self.registry, name, self.what)
        return found.section

    def validate(self, value: Any) -> Section:
        """A mapping, or a name alone, as the section of what it names; a section stays as it is."""
        if isinstance(value, Section):
            return value
        tree = {self.key: value} if isinstance(value, str) else value
        if not isinstance(tree, dict):
            raise ValueError(f"{value!r} is no section; give a mapping with {self.key}")
        return self.section(tree).model_validate({self.key: self.default, **tree})

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        dump = core_schema.plain_serializer_function_ser_schema(
            lambda value, info: value.model_dump(mode=info.mode), info_arg=True
        )
        return core_schema.no_info_plain_validator_function(self.validate, serialization=dump)
