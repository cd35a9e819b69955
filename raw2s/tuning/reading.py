"""A sweep from its file: a run config with distributions and a section `sweep`, or what differs from a `base`.

Every mistake is a line that names the key, before anything starts.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from raw2s.config import SweepConfig, explain, merged, parse_config, put_over, read_yaml, training_key
from raw2s.errors import ConfigError
from raw2s.methods import label_of
from raw2s.pipeline.preflight import check
from raw2s.storage import ARTIFACTS, Uri
from raw2s.tuning.entries import OWN_OF, own_path, own_tree
from raw2s.tuning.searched import Sweep, judged_stage
from raw2s.tuning.space import Knob, find_knobs, grid_points, is_distribution, point_of, tree_at

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


def load_sweeps(path: Path, overrides: list[str]) -> list[Sweep]:
    """The sweep at `path` with each `key=value` put over it, checked: what is searched for each entry. Raises ConfigError."""
    tree = read_yaml(path, [])
    base = tree.pop("base", None)
    for old, new in MOVED.items():
        if old in tree:
            raise ConfigError(f"{old}: a sweep's file is a run config with a section sweep now; write {new}")
    below: dict[str, Any] = {}
    if base is not None:
        below = read_yaml(path.parent / str(base), [])
        tree = merged(below, tree, is_distribution)
    for override in overrides:
        put_over(tree, override)
    section = tree.pop("sweep", None) or {}
    if "method" in section:
        raise ConfigError(f"sweep.method: several entries may be searched now; write sweep.methods: [{section['method']}]")
    try:
        settings = SweepConfig.model_validate(section)
    except ValidationError as error:
        raise ConfigError("; ".join(f"sweep.{explain(dict(e), SweepConfig, section)}" for e in error.errors())) from None
    if settings.name == ARTIFACTS:
        raise ConfigError("sweep.name: artifacts is the artifact store's folder; choose another")
    check_knobs(find_knobs(tree))
    sweeps = searched_entries(settings, tree, below)
    if isinstance(storage := sweeps[0].config(sweeps[0].start).storage, Uri):
        raise ConfigError(f"storage: {storage} is no disk, on which alone a sweep keeps its trials; name a folder")
    return sweeps


def check_knobs(knobs: Sequence[Knob]) -> None:
    """Raise ConfigError where no key of the file is a distribution, or one that cannot be."""
    if not knobs:
        raise ConfigError("no key of the config is a distribution; write one, such as weights: {loss: {simplex: 3}}")
    for knob in knobs:
        if knob.path[0] in FIXED:
            raise ConfigError(f"{knob.key}: {knob.path[0]} is one for all trials; give a value")
        if knob.path[-1] == "judge":
            raise ConfigError(f"{knob.key}: trials that are judged by different figures cannot be compared; give a value")


def entries_of(settings: SweepConfig, tree: dict[str, Any]) -> list[int]:
    """The entries of `methods` that are listed. Raises ConfigError for one that is not there, and knobs that entries cannot have each."""
    knobs = find_knobs(tree)
    count = len(parse_config(tree_at(tree, knobs, point_of(knobs, 0.25, 0))).methods)
    entries = list(range(count)) if settings.methods == "all" else settings.methods
    for entry in entries:
        if entry >= count:
            raise ConfigError(f"sweep.methods: there is no entry {entry} of methods; they count from 0")
    for knob in knobs if len(entries) > 1 else []:
        if knob.path == ("methods",) or knob.path[0] not in (*OWN_OF, "methods"):
            raise ConfigError(
                f"{knob.key}: it is one for all entries of methods, which are searched one by one; give a value, or list one entry in "
                "sweep.methods"
            )
    return entries


def searched_entries(settings: SweepConfig, tree: dict[str, Any], base: dict[str, Any]) -> list[Sweep]:
    """What is searched for each listed entry: the knobs on which its model depends. Raises ConfigError for what cannot be searched."""
    entries, sweeps, bearing = entries_of(settings, tree), [], set()
    for entry in entries:
        sweep = _sweep(settings, entry, own_tree(tree, base, entry), alone=len(entries) == 1)
        check(sweep.config(sweep.start))
        idle = {knob.path for knob in sweep.knobs if not _bears(sweep, knob)}
        bearing |= {knob.key for knob in find_knobs(tree) if own_path(tree, knob, entry) in {k.path for k in sweep.knobs} - idle}
        sweep = replace(sweep, tree=own_tree(tree, base, entry, idle))
        sweeps.append(replace(sweep, knobs=find_knobs(sweep.tree)))
    for knob in find_knobs(tree):
        if knob.key not in bearing:
            raise ConfigError(
                f"{knob.key}: the model that is judged does not depend on it; give a value, or list another entry in sweep.methods"
            )
    for sweep in sweeps:
        if sweep.knobs:
            _check_search(sweep)
    if settings.test_seeds:
        check(parse_config(tree_at(sweeps[0].tree, sweeps[0].knobs, sweeps[0].start) | {"seeds": settings.test_seeds}))
    return sweeps


def _sweep(settings: SweepConfig, entry: int, tree: dict[str, Any], *, alone: bool) -> Sweep:
    made = Sweep(settings=settings, entry=entry, part="", tree=tree, knobs=find_knobs(tree))
    method = label_of(made.config(made.start).methods[entry]).replace(":", "-")
    return made if alone else replace(made, part=f"{entry}-{method}")


def _check_search(sweep: Sweep) -> None:
    """A grid fits the trials; the judged model is that of the best epoch, and its figure sees answers that cannot be parsed."""
    settings = sweep.settings
    if settings.search == "grid" and (points := len(grid_points(sweep.knobs))) > settings.trials:
        raise ConfigError(f"sweep.trials: the grid has {points} points and {settings.trials} trials; set sweep.trials: {points}")
    method, judged = sweep.config(sweep.start).methods[sweep.entry], sweep.judged(sweep.start)
    use = training_key(sweep.entry, method, preference=method.cdpo)
    if judged.training.keep != "best":
        raise ConfigError(f"{use}.keep: a sweep compares epochs on devel; set it to best")
    if judged.task.form == "text" and judged.training.judge == "loss":
        raise ConfigError(
            f"{use}.judge: loss leaves single tokens to compare models by, whose accuracy does not see an answer that cannot be parsed; "
            "set it to score"
        )


def _bears(sweep: Sweep, knob: Knob) -> bool:
    """Whether what is judged depends on it. Raises ConfigError where its ends are not allowed, or an option cannot run."""
    keys = set()
    for at in (0.0, 0.75, 1.0) if not knob.options else range(knob.options):
        point = sweep.start | {name: float(at) for name in knob.coordinates}
        config = sweep.config(point)
        if knob.options:
            check(config)
        keys.add(judged_stage(config, sweep.entry).key)
    return len(keys) > 1
