"""A config from YAML and `--set key=value`, checked before anything starts: every mistake is one line that names the key."""

import difflib
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from raw2s.section import Section
from raw2s.config.tree import RunConfig
from raw2s.errors import ConfigError


def load_config(path: Path, overrides: list[str] | None = None) -> RunConfig:
    """The config at `path` with each `key.of.a.field=value` (YAML values, list items by number) put over it.

    Raises ConfigError.
    """
    return parse_config(read_yaml(path, overrides or []))


def read_yaml(path: Path, overrides: list[str]) -> dict[str, Any]:
    """The YAML mapping at `path` with the overrides put over it, unchecked. Raises ConfigError."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such config file; see configs/ for examples")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML ({str(error).splitlines()[0]}); mend the file") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a config is a mapping of keys; see configs/demo.yaml")
    for override in overrides:
        _apply(tree, override)
    return tree


def parse_config(tree: dict[str, Any]) -> RunConfig:
    """The checked config. Raises ConfigError with every mistake in one line."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(dict(e), RunConfig) for e in error.errors())) from None


def _apply(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise ConfigError(f"--set {override}: no value; write --set key=value")
    *parents, last = key.split(".")
    node: Any = tree
    try:
        value = yaml.safe_load(text)
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        node[int(last) if isinstance(node, list) else last] = value
    except (yaml.YAMLError, ValueError, IndexError, TypeError, AttributeError):
        raise ConfigError(f"--set {override}: there is no such place in the config; see --help for the keys") from None


def _explain(error: dict[str, Any], root: type[Section]) -> str:
    key = ".".join(str(part) for part in error["loc"] if not str(part).startswith(("list[", "literal[")))
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(error["loc"][-1]), _field_names(root, error["loc"][:-1]), n=1)
        return f"{key}: unknown key; " + (f"did you mean {close[0]}?" if close else "see --help for the keys")
    if error["type"] == "missing":
        return f"{key}: missing; add it to the config"
    if error["type"] == "value_error":
        return ": ".join(part for part in (key, str(error["ctx"]["error"])) if part)
    return f"{key}: {error['msg'].lower()}, not {error['input']!r}; correct the value"


def _field_names(section: type[Section], path: tuple[Any, ...]) -> list[str]:
    for part in path:
        if isinstance(part, str) and part in section.model_fields:
            section = next((s for s in _sections(section.model_fields[part].annotation)), section)
    return list(section.model_fields)


def _sections(annotation: Any) -> list[type[Section]]:
    """The config sections inside a type such as `list[TeacherConfig]` or `TrainingConfig | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _sections(argument)]


def describe_keys(section: type[Section] = RunConfig, prefix: str = "") -> list[str]:
    """One line per key of the tree: name, default, meaning; what `--help` prints."""
    lines = []
    for name, field in section.model_fields.items():
        inner = _sections(field.annotation)
        if inner:
            mark = ".0." if "list" in str(field.annotation).lower() else "."
            if field.description:
                lines.append(f"{prefix}{name}: {field.description}")
            lines += describe_keys(inner[0], f"{prefix}{name}{mark}")
        else:
            default = (
                "required"
                if field.is_required()
                else yaml.safe_dump(_plain(field.default), default_flow_style=True).split("\n")[0]
            )
            lines.append(f"{prefix}{name} [{default}]: {field.description}")
    return lines


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
