"""A config from YAML and `--set key=value`, checked before anything starts: every mistake is one line that names the key."""

import difflib
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from raw2s.choices import Chosen
from raw2s.config.own import OWN
from raw2s.config.tree import RunConfig
from raw2s.config.yaml_file import load_yaml
from raw2s.errors import ConfigError
from raw2s.section import Section


def load_config(path: Path, overrides: list[str] | None = None) -> RunConfig:
    """The config at `path` with each `key.of.a.field=value` (YAML values, list items by number) put over it.

    Raises ConfigError.
    """
    tree = read_yaml(path, overrides or [])
    if "sweep" in tree:
        raise ConfigError(f"{path}: its section sweep makes it a sweep's file; run it with raw2s sweep")
    return parse_config(tree)


def read_yaml(path: Path, overrides: list[str]) -> dict[str, Any]:
    """The YAML mapping at `path` with the overrides put over it, unchecked. Raises ConfigError."""
    if not path.exists():
        raise ConfigError(f"{path}: no such config file; see configs/ for examples")
    tree = load_yaml(path)
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a config is a mapping of keys; raw2s init writes one")
    for override in overrides:
        put_over(tree, override)
    return tree


def parse_config(tree: dict[str, Any]) -> RunConfig:
    """The checked config. Raises ConfigError with every mistake in one line."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("; ".join(explain(dict(e), RunConfig, tree) for e in error.errors())) from None


def put_over(tree: dict[str, Any], override: str) -> None:
    """Set `key.of.a.field=value` in the tree. Raises ConfigError where there is no such place."""
    key, separator, text = override.partition("=")
    if not separator:
        raise ConfigError(f"--set {override}: no value; write --set key=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override}: {text!r} is no YAML value; write --set key=value") from None
    *parents, last = key.split(".")
    node: Any = tree
    for depth, part in enumerate(parents):
        at = _key_in(node, part, override, ".".join(parents[:depth]))
        node = node[at] if isinstance(node, list) else node.setdefault(at, {})
    node[_key_in(node, last, override, ".".join(parents))] = value


def _key_in(node: Any, part: str, override: str, place: str) -> Any:
    """The part of a dotted key as a key of the mapping, or a number in the list, at `place`. Raises ConfigError where it is neither."""
    if isinstance(node, dict):
        return part
    if not isinstance(node, list):
        raise ConfigError(f"--set {override}: {place} is {node!r} and holds no keys; see --help for the keys")
    if not part.isdecimal() or int(part) >= len(node):
        raise ConfigError(f"--set {override}: {place} has {len(node)} entries, counted from 0; see --help for the keys")
    return int(part)


MOVED = {"students": "methods", "labeling.score": "score of a joint method, and preference.score"}
"""Keys of earlier versions, and where they are now."""


EXPECTED = {
    "string_pattern_mismatch": "a name is letters, digits, _, - and . alone",
    "too_short": "at least one is needed",
    "path_type": "a path is needed",
}
"""By the type of pydantic's error, where its own message is for programmers."""


def explain(error: dict[str, Any], root: type[Section], tree: dict[str, Any]) -> str:
    """One of pydantic's errors as a line: the key, what is wrong, what to do."""
    path = [part for part in error["loc"] if not str(part).startswith(("list[", "literal["))]
    key = ".".join(map(str, path))
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key; {_advice(str(path[-1]), key, _place(root, tree, path[:-1]))}"
    if error["type"] == "missing":
        choice = _place(root, tree, path[:-1])[1]
        others = "" if choice is None else f", or set another {choice.key} ({', '.join(choice.registry)})"
        return f"{key}: missing; add it to the config{others}"
    if error["type"] == "value_error":
        return ": ".join(part for part in (key, str(error["ctx"]["error"])) if part)
    expected = EXPECTED.get(error["type"], error["msg"].lower())
    return f"{key}: {expected}, not {error['input']!r}; correct the value"


def _advice(name: str, key: str, place: tuple[type[Section], Chosen | None]) -> str:
    """What to do about a key that its section does not have."""
    section, choice = place
    if key in MOVED:
        return f"it is now {MOVED[key]}"
    nested = {option: field for field in section.model_fields for s in _inside(section, field)[0] for option in s.model_fields}
    if name in nested:
        return f"it belongs to {nested[name]}: write {nested[name]}.{name}"
    if choice is not None and (options := [o for o, value in choice.registry.items() if name in value.section.model_fields]):
        return f"it goes with {choice.key}: {' or '.join(options)}; remove it, or set that"
    if close := difflib.get_close_matches(name, section.model_fields, n=1):
        return f"did you mean {close[0]}?"
    close = difflib.get_close_matches(name, nested, n=1)
    return f"did you mean {nested[close[0]]}.{close[0]}?" if close else "see --help for the keys"


def _place(root: type[Section], tree: Any, path: list[Any]) -> tuple[type[Section], Chosen | None]:
    """The section at a path, and what chose it."""
    if path[:1] == ["methods"] and len(path) > 2 and path[2] in OWN:
        path = [OWN[path[2]], *path[3:]]  # the keys are those of the section that they are put over
    section, choice, node = root, None, tree
    for part in path:
        if isinstance(part, str) and part in section.model_fields:
            sections, choice = _inside(section, part)
            section = sections[0] if sections else section
        try:
            node = node[part]
        except (KeyError, IndexError, TypeError):
            node = {}
        if choice is not None and isinstance(node, dict):
            section = choice.section(_named(choice, node, section))
    return section, choice


def _named(choice: Chosen, node: dict[str, Any], section: type[Section]) -> dict[str, Any]:
    """The tree with its choice's name: a method's loss without one is the method's usual."""
    field = section.model_fields.get(choice.key)
    known = choice.key in node or choice.default is not None or field is None
    return node if known else {**node, choice.key: next(iter(choice.registry))}


def _inside(section: type[Section], name: str) -> tuple[list[type[Section]], Chosen | None]:
    """The sections that a field may hold: all that its registry has where the field is a choice."""
    field = section.model_fields[name]
    choice = next((mark for mark in (*field.metadata, *_marks(field.annotation)) if isinstance(mark, Chosen)), None)
    if choice is not None:
        return list({option.section: None for option in choice.registry.values()}), choice
    return _sections(field.annotation), None


def _marks(annotation: Any) -> list[Any]:
    """The marks of all `Annotated` inside a type."""
    return [*getattr(annotation, "__metadata__", ()), *(m for argument in get_args(annotation) for m in _marks(argument))]


def _sections(annotation: Any) -> list[type[Section]]:
    """The config sections inside a type such as `TrainingConfig | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _sections(argument)]


def describe_keys(section: type[Section] = RunConfig, prefix: str = "") -> list[str]:
    """One line per key of the tree: name, default, meaning; what `--help` prints. What varies has the keys of every choice."""
    lines = []
    for name, field in section.model_fields.items():
        inner, choice = _inside(section, name)
        mark = ".0." if "list" in str(field.annotation).lower() else "."
        if not inner:
            required = field.is_required()
            default = "required" if required else yaml.safe_dump(_plain(field.default), default_flow_style=True).split("\n")[0]
            lines.append(f"{prefix}{name} [{default}]: {field.description}")
            continue
        if field.description:
            lines.append(f"{prefix}{name}: {field.description}")
        described = {option: describe_keys(option, f"{prefix}{name}{mark}") for option in inner}
        if choice is not None:
            default = choice.default or "the method's own"
            lines.append(f"{prefix}{name}{mark}{choice.key} [{default}]: {', '.join(choice.registry)}, or module:name")
        for line in dict.fromkeys(line for own in described.values() for line in own):  # what the choices share is said once
            if choice is None or _key(line) != choice.key:
                lines.append(_with_choice(line, choice, described))
    return lines


def _key(line: str) -> str:
    """The last part of the key that a line of `describe_keys` is about."""
    return line.partition(" [")[0].rpartition(".")[2]


def _with_choice(line: str, choice: Chosen | None, described: dict[type[Section], list[str]]) -> str:
    """A key that not all choices have, with this default and meaning, says with which ones it goes."""
    if choice is None or all(line in own for own in described.values()):
        return line
    names = [name for name, value in choice.registry.items() if line in described[value.section]]
    return f"{line} ({choice.key}: {', '.join(names)})"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
