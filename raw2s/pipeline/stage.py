"""What a stage is: a frozen value whose fields say what it reads and what decides its content, and whose `run` fills a folder.

A field is a setting (in the key), another stage (an input, by its key), or a `Placement` (in no key). The key is a hash of the
kind, its version and the fields, so a second run, a sweep trial or a run with one more teacher finds what did not change.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from raw2s.pipeline.artifacts import Artifact, artifact_key
from raw2s.section import Placement, Section, settings_of
from raw2s.storage import Place

Metrics = dict[str, Any]


@runtime_checkable
class Keyed(Protocol):
    """A value that says itself what of it is in a key: a task, or drawn examples."""

    @property
    def content(self) -> Any: ...


@dataclass(kw_only=True)
class Work:
    """What a stage is given beside its fields: its inputs' folders, an empty one to fill, one for what it finishes on the way."""

    inputs: Mapping[str, Artifact]
    """By the key of the stage that made it."""
    out: Path = Path()
    """Set as the stage begins."""
    parts: Place
    """Outlives a stage that is cut off: the next attempt finds what this one finished."""
    board: Any = None
    """A `raw2s.pipeline.progress.Board` actor, or None."""
    warn: Callable[[str], None] = print
    """Hears, in a sentence, what the user must know of a stage that goes on all the same."""
    callbacks: Sequence[Any] = ()
    """Ray Train callbacks of a training stage; a sweep reports to Tune through one."""
    earlier: Callable[[str], Iterable[Artifact]] = lambda kind: ()
    """The finished artifacts of a kind, for a stage that can use what another one has done."""
    lent: list[str] = field(default_factory=list)
    """The keys of those that it did use; written in the manifest."""

    def folder(self, stage: "Stage") -> Path:
        """Where the artifact of an input lies."""
        return self.inputs[stage.key].folder


@dataclass(frozen=True, kw_only=True)
class Stage(ABC):
    """One step of a run. Subclasses are frozen, keyword-only dataclasses; a field that is no setting is typed so."""

    kind: ClassVar[str]
    """The folder of its artifacts in the store."""
    version: ClassVar[int] = 1
    """Raised when the same fields give another content, so that a mended stage does not find what the broken one made."""

    name: str
    """What tables and bars call it; in no key."""

    @abstractmethod
    def run(self, work: Work) -> Metrics:
        """Fill `work.out`; returns the metrics of the manifest."""

    @cached_property
    def key(self) -> str:
        return artifact_key(self.kind, self.version, self.settings, self.input_keys)

    @property
    def place(self) -> str:
        """The folder of its artifact, from the storage."""
        return f"artifacts/{self.kind}/{self.key}"

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The fields that decide the content, as plain data, inputs left out."""
        return _settings(self, without="name")

    @cached_property
    def inputs(self) -> dict[str, "Stage"]:
        """The stages whose artifacts it reads, by the path of the field that holds them: `split`, `answers/gpt2`."""
        own = [(f.name, getattr(self, f.name)) for f in dataclasses.fields(self)]
        return {role: stage for name, value in own for role, stage in _stages(name, value)}

    @property
    def input_keys(self) -> dict[str, str]:
        return {role: stage.key for role, stage in self.inputs.items()}


def inputs_first(stages: Iterable[Stage]) -> list[Stage]:
    """These stages and all that they need, each once, after what it needs."""
    ordered: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        for needed in stage.inputs.values():
            visit(needed)
        ordered.setdefault(stage.name, stage)

    for stage in stages:
        visit(stage)
    return list(ordered.values())


def _is_placement(value: Any) -> bool:
    """Whether a value is nothing but placement: `settings_of` tells apart the sections that mix both."""
    return isinstance(value, Placement) and Placement in type(value).__bases__


def _stages(role: str, value: Any) -> Iterator[tuple[str, Stage]]:
    if isinstance(value, Stage):
        yield role, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _stages(f"{role}/{name}", inner)
    elif dataclasses.is_dataclass(value) and not isinstance(value, Keyed):
        for f in dataclasses.fields(value):
            yield from _stages(f"{role}/{f.name}", getattr(value, f.name))


def _plain(value: Any) -> Any:
    """A field as plain data: sections without placement, mappings of stages in the order of their names."""
    if isinstance(value, Keyed):
        return value.content
    if isinstance(value, Section):
        return settings_of(value)
    if isinstance(value, Mapping) and any(True for _ in _stages("", value)):
        return [[name, None if isinstance(inner, Stage) else _plain(inner)] for name, inner in value.items()]
    return _settings(value) if dataclasses.is_dataclass(value) else value


def _settings(value: Any, without: str = "") -> dict[str, Any]:
    own = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.name != without}
    return {name: _plain(v) for name, v in own.items() if not _is_placement(v) and not isinstance(v, Stage)}
