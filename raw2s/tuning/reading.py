"""A sweep from its file: a run config with distributions and a section `sweep`, or what differs from a `base`.

Every mistake is a line that names the key, before anything starts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from raw2s.config import RunConfig, SweepConfig, explain, parse_config, put_over, read_yaml
from raw2s.errors import ConfigError
from raw2s.pipeline.plan import plan_stages
from raw2s.pipeline.preflight import check
from raw2s.pipeline.training_stages import Trained
from raw2s.tuning.space import Knob, Point, find_knobs, grid_points, is_distribution, tree_at

MOVED = {
    "set": "the keys themselves, in this file",
    "trials": "sweep.trials",
    "concurrent": "sweep.concurrent",
    "grace_epochs": "sweep.grace_epochs",
    "seed": "sweep.seed",
    "gamma_max": "the key where a run config has it: methods: {0: {loss: {gamma_max: {uniform: [0, 0.5]}}}}",
    "kl_weight": "the key where a run config has it: methods: {0: {loss: {kl_weight: {loguniform: [1.0e-4, 1]}}}}",
}
"""Top keys of a sweep's file in earlier versions, and what is written now."""
FIXED = ("name", "storage", "seeds", "ray")
"""Keys that are one for the whole sweep."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What is searched and how."""

    settings: SweepConfig
    tree: dict[str, Any]
    """The run config, distributions inside."""
    knobs: list[Knob]

    def config(self, point: Mapping[str, float]) -> RunConfig:
        """The run config at a point. Raises ConfigError."""
        return parse_config(tree_at(self.tree, self.knobs, point))

    def judged(self, point: Mapping[str, float]) -> Trained:
        """The stage at a point whose model is judged."""
        return judged_stage(self.config(point), self.settings.method)

    @property
    def start(self) -> Point:
        """A point that stands for all of them."""
        return self.point(0.25, 0)

    def point(self, at: float, option: int) -> Point:
        """Every number at `at` and every choice at `option`."""
        sizes = {name: size for knob in self.knobs for name, size in knob.coordinates.items()}
        return {name: float(option) if size else at for name, size in sizes.items()}


def judged_stage(config: RunConfig, method: int) -> Trained:
    """The last stage that trains of an entry of `methods`: its student, or cDPO where it has that; of the first seed."""
    plan = plan_stages(config, config.seeds[0])
    rows = [student for student in plan.students if student.entry == method]
    return rows[-1].stage


def load_sweep(path: Path, overrides: list[str]) -> Sweep:
    """The sweep at `path` with each `key=value` put over it, checked. Raises ConfigError."""
    tree = read_yaml(path, [])
    base = tree.pop("base", None)
    for old, new in MOVED.items():
        if old in tree:
            raise ConfigError(f"{old}: a sweep's file is a run config with a section sweep now; write {new}")
    if base is not None:
        tree = merged(read_yaml(path.parent / str(base), []), tree)
    for override in overrides:
        put_over(tree, override)
    section = tree.pop("sweep", None) or {}
    try:
        settings = SweepConfig.model_validate(section)
    except ValidationError as error:
        raise ConfigError("; ".join(f"sweep.{explain(dict(e), SweepConfig, section)}" for e in error.errors())) from None
    sweep = Sweep(settings=settings, tree=tree, knobs=find_knobs(tree))
    check_sweep(sweep)
    return sweep


def merged(base: Any, changes: Any) -> Any:
    """`base` with `changes` put over it: mappings key by key, a mapping over a list by its items' numbers, all else whole."""
    if not isinstance(changes, dict) or is_distribution(changes):
        return changes
    if isinstance(base, list) and all(type(key) is int and 0 <= key < len(base) for key in changes):
        return [merged(item, changes[i]) if i in changes else item for i, item in enumerate(base)]
    if not isinstance(base, dict) or is_distribution(base):
        return changes
    return base | {key: merged(base.get(key), value) for key, value in changes.items()}


def check_sweep(sweep: Sweep) -> None:
    """Raise ConfigError for a space that cannot be searched: no knob, one that changes nothing, values that no config takes."""
    settings = sweep.settings
    if not sweep.knobs:
        raise ConfigError("no key of the config is a distribution; write one, such as weights: {loss: {simplex: 3}}")
    for knob in sweep.knobs:
        if knob.path[0] in FIXED:
            raise ConfigError(f"{knob.key}: {knob.path[0]} is one for all trials; give a value")
        if knob.path[-1] == "judge":
            raise ConfigError(f"{knob.key}: trials that are judged by different figures cannot be compared; give a value")
    if settings.search == "grid" and (points := len(grid_points(sweep.knobs))) > settings.trials:
        raise ConfigError(f"sweep.trials: the grid has {points} points and {settings.trials} trials; set sweep.trials: {points}")
    if settings.name == "artifacts":
        raise ConfigError("sweep.name: artifacts is the artifact store's folder; choose another")
    start = sweep.start
    config = sweep.config(start)
    if settings.method >= len(config.methods):
        raise ConfigError(f"sweep.method: there is no entry {settings.method} of methods; they count from 0")
    check(config)
    for knob in sweep.knobs:
        _check_knob(sweep, knob, start)
    _check_judging(sweep, start)


def _check_judging(sweep: Sweep, start: Point) -> None:
    """The judged model is that of the best epoch, and its figure sees answers that cannot be parsed."""
    use = "preference.training" if sweep.config(start).methods[sweep.settings.method].cdpo else "student_training"
    judged = sweep.judged(start)
    if judged.training.keep != "best":
        raise ConfigError(f"{use}.keep: a sweep compares epochs on devel; set it to best")
    if judged.task.form == "text" and judged.training.judge == "loss":
        raise ConfigError(
            f"{use}.judge: loss leaves single tokens to compare models by, whose accuracy does not see an answer that cannot be parsed; "
            "set it to score"
        )


def _check_knob(sweep: Sweep, knob: Knob, start: Point) -> None:
    """Its ends are allowed, its options stand in configs that can run, and what is judged depends on it."""
    keys = set()
    for at in (0.0, 0.75, 1.0) if not knob.options else range(knob.options):
        point = start | {name: float(at) for name in knob.coordinates}
        config = sweep.config(point)
        if knob.options:
            check(config)
        keys.add(judged_stage(config, sweep.settings.method).key)
    if len(keys) == 1:
        raise ConfigError(f"{knob.key}: the model that is judged does not depend on it; give a value, or judge another method")
