"""A run config whose keys may be distributions: finding them in its tree, and the tree at one point of the space.

    methods: [{method: bayesian, loss: {gamma_max: {uniform: [0, 0.5]}, kl_weight: {loguniform: [1.0e-4, 1]}}}]
    weights: {loss: {simplex: 3}}

A knob has one or more coordinates, which a search sees: numbers in [0, 1], or the number of an option. Uniform coordinates give the
knob's distribution, so that drawing them is sampling and an optimizer needs to know of no scale.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raw2s.errors import ConfigError

Path = tuple[str | int, ...]
"""Of a key in a config's tree."""
Point = dict[str, float]
"""One value a coordinate, by the coordinates' names."""
SIGNIFICANT = 6
"""Digits of a sampled number: what a file shows is what was trained."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A distribution: its argument read and checked, its coordinates, and its value at a point of them."""

    read: Callable[[Any], tuple[Any, ...]]
    """The argument as YAML gives it. Raises ValueError."""
    coordinates: Callable[[tuple[Any, ...]], list[int]]
    """Of each coordinate the number of its options, or 0 for a number in [0, 1]."""
    value: Callable[[tuple[Any, ...], Sequence[float]], Any]
    grid: Callable[[tuple[Any, ...]], list[float]] | None = None
    """The values of its one coordinate that a grid goes over; None where there is no natural number of them."""


@dataclass(frozen=True, kw_only=True)
class Knob:
    """A key that is a distribution."""

    path: Path
    name: str
    """Of its distribution, in `KINDS`."""
    argument: tuple[Any, ...]

    @property
    def kind(self) -> Kind:
        return KINDS[self.name]

    @property
    def key(self) -> str:
        return ".".join(map(str, self.path))

    @property
    def coordinates(self) -> dict[str, int]:
        """Of each coordinate, by name, the number of its options, or 0 for a number in [0, 1]."""
        sizes = self.kind.coordinates(self.argument)
        return {self.key: sizes[0]} if len(sizes) == 1 else {f"{self.key}[{i}]": size for i, size in enumerate(sizes)}

    @property
    def options(self) -> int:
        """How many values a choice has; 0 of other knobs."""
        return max(self.kind.coordinates(self.argument))

    def value(self, point: Mapping[str, float]) -> Any:
        """What the key is at a point of the space."""
        return self.kind.value(self.argument, [point[name] for name in self.coordinates])


def simplex(uniforms: Sequence[float]) -> list[float]:
    """N weights from N - 1 numbers in [0, 1]; uniform on the simplex, Dirichlet(1, ..., 1), where the numbers are uniform.

    Stick breaking: with k weights left to give, the next takes 1 - (1 - u)^(1 / (k - 1)) of what is left, the inverse distribution
    function of Beta(1, k - 1), which is the marginal of that Dirichlet (Sethuraman 1994; Devroye 1986, XI.4).
    """
    left, weights = 1.0, []
    for number, u in enumerate(uniforms):
        share = 1 - (1 - u) ** (1 / (len(uniforms) - number))
        weights.append(left * share)
        left *= 1 - share
    return [*weights, left]


def _short(value: float, low: float = 0.0, high: float = 1.0) -> float:
    """Rounded, and still between the bounds."""
    return min(high, max(low, float(f"{value:.{SIGNIFICANT}g}")))


def _numbers(argument: Any) -> tuple[float, float]:
    number = (int, float)
    if not isinstance(argument, list) or len(argument) != 2 or not all(type(a) in number for a in argument):
        raise ValueError(f"{argument!r} are not two numbers; write [smallest, largest]")
    low, high = argument
    if not low < high:
        raise ValueError(f"{low} is not below {high}; write [smallest, largest]")
    return low, high


def _positive(argument: Any) -> tuple[float, float]:
    low, high = _numbers(argument)
    if low <= 0:
        raise ValueError(f"{low} has no logarithm; start above zero, or use uniform")
    return low, high


def _whole(argument: Any) -> tuple[int, int]:
    low, high = _numbers(argument)
    if not (isinstance(low, int) and isinstance(high, int)):
        raise ValueError(f"{argument!r} are not whole numbers; correct them, or use uniform")
    return low, high


def _options(argument: Any) -> tuple[Any, ...]:
    if not isinstance(argument, list) or len(argument) < 2 or any(argument.count(option) > 1 for option in argument):
        raise ValueError(f"{argument!r} is no list of two or more different values; write [first, second]")
    return tuple(argument)


def _size(argument: Any) -> tuple[int]:
    if type(argument) is not int or argument < 2:
        raise ValueError(f"{argument!r} is no number of weights; write how many teachers there are, two or more")
    return (argument,)


def _grid_of_ints(argument: tuple[Any, ...]) -> list[float]:
    """The middle of each whole number's part of [0, 1]."""
    values = argument[1] - argument[0] + 1
    return [(i + 0.5) / values for i in range(values)]


KINDS = {
    "uniform": Kind(read=_numbers, coordinates=lambda a: [0], value=lambda a, u: _short(a[0] + (a[1] - a[0]) * u[0], *a)),
    "loguniform": Kind(read=_positive, coordinates=lambda a: [0], value=lambda a, u: _short(a[0] * (a[1] / a[0]) ** u[0], *a)),
    "int": Kind(
        read=_whole,
        coordinates=lambda a: [0],
        value=lambda a, u: min(a[1], a[0] + int(u[0] * (a[1] - a[0] + 1))),
        grid=_grid_of_ints,
    ),
    "choice": Kind(
        read=_options,
        coordinates=lambda a: [len(a)],
        value=lambda a, u: a[int(u[0])],
        grid=lambda a: [float(i) for i in range(len(a))],
    ),
    "simplex": Kind(
        read=_size,
        coordinates=lambda a: [0] * (a[0] - 1),
        value=lambda a, u: [_short(weight) for weight in simplex(u)],
    ),
}
"""The distributions by the name that a key's mapping has: `{uniform: [a, b]}`, `{simplex: N}`."""


def is_distribution(node: Any) -> bool:
    return isinstance(node, dict) and bool(KINDS.keys() & node.keys())


def find_knobs(tree: Mapping[str, Any]) -> list[Knob]:
    """The keys of a config tree that are distributions, in its order. Raises ConfigError, naming the key."""
    return list(_find(tree, ()))


def _find(node: Any, path: Path) -> Iterator[Knob]:
    if is_distribution(node):
        yield _knob(node, path)
    elif isinstance(node, dict):
        for name, inner in node.items():
            yield from _find(inner, (*path, name))
    elif isinstance(node, list):
        for index, inner in enumerate(node):
            yield from _find(inner, (*path, index))


def _knob(node: dict[str, Any], path: Path) -> Knob:
    key = ".".join(map(str, path))
    if len(node) > 1:
        raise ConfigError(f"{key}: a distribution is one name and its argument, not {', '.join(map(str, node))}; leave one")
    ((name, argument),) = node.items()
    try:
        return Knob(path=path, name=name, argument=KINDS[name].read(argument))
    except ValueError as error:
        raise ConfigError(f"{key}.{name}: {error}") from None


def tree_at(tree: Mapping[str, Any], knobs: Sequence[Knob], point: Mapping[str, float]) -> dict[str, Any]:
    """The config tree with every knob's value at `point`; nothing of `tree` is changed."""
    values = {knob.path: knob.value(point) for knob in knobs}

    def filled(node: Any, path: Path) -> Any:
        if path in values:
            return values[path]
        if isinstance(node, dict):
            return {name: filled(inner, (*path, name)) for name, inner in node.items()}
        if isinstance(node, list):
            return [filled(inner, (*path, index)) for index, inner in enumerate(node)]
        return node

    found: dict[str, Any] = filled(dict(tree), ())
    return found


def point_of(knobs: Sequence[Knob], at: float, option: int) -> Point:
    """Every number at `at` and every choice at `option`."""
    sizes = {name: size for knob in knobs for name, size in knob.coordinates.items()}
    return {name: float(option) if size else at for name, size in sizes.items()}


def value_text(value: Any) -> str:
    """A knob's value as tables write it: four digits of a number, the weights of a simplex in a row."""
    if isinstance(value, list):
        return f"[{', '.join(map(value_text, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def drawn_points(knobs: Sequence[Knob], count: int, seed: int) -> list[Point]:
    """`count` points drawn from the knobs' distributions; the first ones of a longer list are those of a shorter."""
    rng = np.random.default_rng(seed)
    sizes = {name: size for knob in knobs for name, size in knob.coordinates.items()}
    return [
        {name: float(rng.integers(size)) if size else float(rng.random()) for name, size in sizes.items()} for _ in range(count)
    ]


def grid_points(knobs: Sequence[Knob]) -> list[Point]:
    """Every combination of the knobs' values. Raises ConfigError for a knob that has no natural number of them."""
    axes = []
    for knob in knobs:
        if knob.kind.grid is None:
            raise ConfigError(f"{knob.key}: a grid goes over choice and int; write one, or set sweep.search: random")
        axes.append(knob.kind.grid(knob.argument))
    names = [knob.key for knob in knobs]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*axes)]
