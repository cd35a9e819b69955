"""A sweep's config tree as one entry of `methods` searches it: what entries share is searched in a section of the entry's own.

    weights: {loss: {simplex: 3}}     ->  methods: [{method: naive, weights: {loss: {simplex: 3}}}, majority]
    methods: [naive, majority]

So each entry finds its own values. A config of one entry keeps its distributions where they are.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from raw2s.config import OWN
from raw2s.errors import ConfigError
from raw2s.tuning.space import Knob, Path, find_knobs, is_distribution, point_of, tree_at

OWN_OF = {shared: own for own, shared in OWN.items()}
"""By a section of the run that of an entry which is put over it."""


def several(tree: Mapping[str, Any]) -> bool:
    """Whether the config has more than one entry."""
    methods = tree.get("methods")
    return isinstance(methods, list) and len(methods) > 1


def own_path(tree: Mapping[str, Any], knob: Knob, entry: int) -> Path:
    """Where an entry searches a knob of the file."""
    first, *rest = knob.path
    return ("methods", entry, OWN_OF[str(first)], *rest) if several(tree) and first in OWN_OF else knob.path


def own_tree(tree: Mapping[str, Any], base: Mapping[str, Any], entry: int, without: Collection[Path] = ()) -> dict[str, Any]:
    """The tree with the knobs that `entry` searches, but those whose path there is in `without`, and no others.

    A section that entries share has at a knob's key the value of `base` in its place, or none, so that the default counts: as the
    ceiling reads it, and entries that are not searched. An entry's own value is no knob. Knobs of other entries, on which nothing of
    this one depends, have a value. Raises ConfigError where knobs would go into an entry that is itself a distribution.
    """
    knobs = find_knobs(tree)
    others = [knob for knob in knobs if several(tree) and knob.path[0] == "methods" and knob.path[1] != entry]
    made = tree_at(tree, others, point_of(others, 0.25, 0))
    for knob in knobs:
        path = own_path(tree, knob, entry)
        if path == knob.path:
            continue
        distribution = _replaced(made, knob.path, _value_in(base, knob.path))
        if path in without:
            continue
        if isinstance(made["methods"][entry], str):
            made["methods"][entry] = {"method": made["methods"][entry]}
        if is_distribution(made["methods"][entry]):
            raise ConfigError(
                f"methods.{entry}: an entry that is a distribution has no values of its own, and {knob.key} is searched for each "
                "entry; write its options as entries"
            )
        _put_where_nothing_is(made["methods"][entry], path[2:], distribution)
    return made


def joined(trees: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """One tree in which each of these entries is that of its own tree; all else is the same in all of them."""
    first = next(iter(trees.values()))
    if not several(first):
        return dict(first)
    return {**first, "methods": [trees.get(i, first)["methods"][i] for i in range(len(first["methods"]))]}


def _value_in(base: Any, path: Path) -> Any:
    """The value of a key, or None where there is none, or one that is searched."""
    for name in path:
        base = base.get(name) if isinstance(base, Mapping) else None
    return None if list(find_knobs({"": base})) else base


def _replaced(tree: Any, path: Path, value: Any) -> Any:
    """What was at a path, where now the value is; None takes the key away."""
    *parents, last = path
    for name in parents:
        tree = tree[name]
    found = tree.pop(last)
    if value is not None:
        tree[last] = value
    return found


def _put_where_nothing_is(node: Any, path: Sequence[str | int], value: Any) -> None:
    for name in path[:-1]:
        node = node.setdefault(name, {})
        if not isinstance(node, dict) or is_distribution(node):
            return
    node.setdefault(path[-1], value)
