"""What an entry of `methods` has of its own: keys put over the run's sections, for that entry alone."""

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import ValidationError

from raw2s.methods import MethodSection
from raw2s.section import Section

OWN = {"weights": "weights", "training": "student_training", "preference": "preference"}
"""Keys of an entry, and the run's section that each is put over."""

S = TypeVar("S", bound=Section)


def merged(base: Any, changes: Any, whole: Callable[[Any], bool] = lambda node: False) -> Any:
    """`base` with `changes` put over it: mappings key by key, a mapping over a list by its items' numbers, all else whole.

    A mapping that is `whole` is a value: nothing is put into it.
    """
    if not isinstance(changes, dict) or whole(changes):
        return changes
    if isinstance(base, list) and all(type(key) is int and 0 <= key < len(base) for key in changes):
        return [merged(item, changes[i], whole) if i in changes else item for i, item in enumerate(base)]
    if not isinstance(base, dict) or whole(base):
        return changes
    return base | {key: merged(base.get(key), value, whole) for key, value in changes.items()}


def training_key(entry: int, method: MethodSection, *, preference: bool) -> str:
    """The config's key of how an entry's student trains, or its cDPO: the entry's own where it has one."""
    if preference:
        return f"methods.{entry}.preference.training" if "training" in method.preference else "preference.training"
    return f"methods.{entry}.training" if method.training else "student_training"


def put_over_section(section: S, changes: dict[str, Any]) -> S:
    """The section with an entry's keys put over its own, checked anew. Raises ValidationError."""
    return type(section).model_validate(merged(section.model_dump(), changes)) if changes else section


def placed_at(error: ValidationError, *path: str | int) -> ValidationError:
    """The same mistakes at a place further inside the config."""
    lines = [
        {name: value for name, value in line.items() if name in ("type", "input", "ctx")} | {"loc": (*path, *line["loc"])}
        for line in error.errors()
    ]
    return ValidationError.from_exception_data(error.title, lines)  # type: ignore[arg-type]
