"""What came of a sweep: the best of each entry of `methods`, one config with all of them, and the tables at the end."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table

from raw2s.tuning.entries import joined
from raw2s.tuning.judged import JUDGED
from raw2s.tuning.searched import Sweep
from raw2s.tuning.space import tree_at, value_text
from raw2s.tuning.trials import Trial


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of the search for one entry."""

    sweep: Sweep
    order: list[Trial]
    """The trials that count, best first; at least one."""
    found: int
    """Stages that its new trials found."""
    made: int

    @property
    def best(self) -> Trial:
        return self.order[0]


def best_tree(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The run config with every searched entry at its best, and the seeds of the test where there are some."""
    trees = {o.sweep.entry: tree_at(o.sweep.tree, o.sweep.knobs, o.best.point) for o in outcomes}
    tree, seeds = joined(trees), outcomes[0].sweep.settings.test_seeds
    return {**tree, "name": f"{tree.get('name', 'run')}-best"} | ({"seeds": seeds} if seeds else {})


def write_best(outcomes: Sequence[Outcome], folder: Path) -> Path:
    """`best.yaml`, which the main job takes."""
    file = folder / "best.yaml"
    file.write_text(yaml.safe_dump(best_tree(outcomes), sort_keys=False))
    return file


def write_fronts(outcomes: Sequence[Outcome], folder: Path) -> list[Path]:
    """`front-1.yaml` and so on in an entry's folder: where its other points of the Pareto front stand in place of its best."""
    files = []
    for index, outcome in enumerate(outcomes):
        own = folder / outcome.sweep.part
        for old in own.glob("front-*.yaml"):
            old.unlink()
        for number, trial in enumerate((trial for trial in outcome.order[1:] if trial.front), 1):
            tree = best_tree([*outcomes[:index], replace(outcome, order=[trial]), *outcomes[index + 1 :]])
            files.append(own / f"front-{number}.yaml")
            files[-1].write_text(yaml.safe_dump({**tree, "name": f"{tree['name']}-front-{number}"}, sort_keys=False))
    return files


def table_of(sweeps: Sequence[Sweep], outcomes: Sequence[Outcome]) -> Table:
    """All trials of the one entry that was searched, or of several each at its best; figures are of devel alone."""
    return trials_table(outcomes[0]) if len(sweeps) == 1 else methods_table(sweeps, outcomes)


def trials_table(outcome: Outcome) -> Table:
    """The trials that count, best first."""
    table = Table(title="trials, best first (devel)")
    further = [name for name in outcome.sweep.settings.objectives if name != JUDGED]
    last = [*further, "front"] if further else []
    for column in ("trial", *(knob.key for knob in outcome.sweep.knobs), "epochs", JUDGED, *last):
        table.add_column(column, justify="right")
    for trial in outcome.order:
        reached = f"{trial.epoch} (stopped)" if trial.status == "stopped" else str(trial.epoch)
        cells = [str(trial.number), *map(value_text, trial.values.values()), reached, f"{trial.figure:.4f}"]
        cells += [f"{trial.objectives[name]:.4f}" for name in further]
        table.add_row(*cells, *(["*"] if trial.front else []))
    return table


def methods_table(sweeps: Sequence[Sweep], outcomes: Sequence[Outcome]) -> Table:
    """The entries in the order of the config; one without a knob stands as it is."""
    table = Table(title="methods, each at its best (devel)")
    for column in ("method", "trials", JUDGED):
        table.add_column(column, justify="left" if column == "method" else "right")
    table.add_column("values", overflow="fold")
    came = {outcome.sweep.entry: outcome for outcome in outcomes}
    for sweep in sorted(sweeps, key=lambda sweep: sweep.entry):
        if sweep.entry not in came:
            table.add_row(sweep.part, "0", "", "as it is: no searched key bears on it")
            continue
        order, own = came[sweep.entry].order, f"methods.{sweep.entry}."
        values = (f"{key.removeprefix(own)} {value_text(value)}" for key, value in order[0].values.items())
        table.add_row(sweep.part, str(len(order)), f"{order[0].figure:.4f}", ", ".join(values))
    return table
