"""The space as Optuna sees it: its coordinates."""

from collections.abc import Sequence

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from raw2s.tuning.space import Knob


def distributions_of(knobs: Sequence[Knob]) -> dict[str, BaseDistribution]:
    """By the coordinates' names: a number in [0, 1], or the number of an option."""
    sizes = {name: size for knob in knobs for name, size in knob.coordinates.items()}
    return {name: CategoricalDistribution(range(size)) if size else FloatDistribution(0.0, 1.0) for name, size in sizes.items()}
