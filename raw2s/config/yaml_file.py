"""A YAML file as plain data: what is no YAML is named by its line and column, and so is a key that is given twice."""

from pathlib import Path
from typing import Any

import yaml
from yaml.reader import ReaderError

from raw2s.errors import ConfigError
from raw2s.utf8 import read_utf8

MERGE = "tag:yaml.org,2002:merge"
"""The tag of `<<`, whose keys may be given again."""


class _OnceLoader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML's own loader takes the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        given: dict[str, yaml.Node] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                if key.value in given:
                    first = given[key.value].start_mark.line + 1
                    raise yaml.MarkedYAMLError(
                        problem=f"{key.value} is given twice, first in line {first}", problem_mark=key.start_mark
                    )
                given[key.value] = key
        return super().construct_mapping(node, deep)


def load_yaml(file: Path) -> Any:
    """What the file holds. Raises ConfigError, with line and column, where it cannot be read."""
    try:
        text = read_utf8(file)
        return yaml.load(text, Loader=_OnceLoader)  # a SafeLoader
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}); name a YAML file") from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{file}: line {line} holds a character that YAML does not allow; remove it") from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{file}: {_place(error)}{error.problem}; {_advice(error)}") from None
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _place(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark
    return "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "


def _advice(error: yaml.MarkedYAMLError) -> str:
    said = str(error.problem)
    if "'\\t'" in said:
        return "write spaces for the tab"
    return "remove one" if "given twice" in said else "mend the YAML there"
