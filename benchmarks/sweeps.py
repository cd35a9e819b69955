"""What a long sweep finds, and what the teachers' weights are worth: swept, set by hand, uniform, fitted to devel, learned by RAVEN.

    python benchmarks/sweeps.py [--task slots|scenario] [--size full|tiny] [--storage runs/sweeps] [--out benchmarks/results/sweeps.json]

A sweep over weights, γ_max, λ_EDL and the learning rate, judged on devel; then every way to weigh, on the test set with several
training seeds. Teachers and labels are those of the sweep, made once: the seeds are the students'. All that is finished lies in the storage, and the results
are written after every part, so a start goes on where the one before was cut off. `sweeps_page.py` puts them into docs/sweeps.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import harness
import numpy as np
from rich.console import Console

from raw2s.config import RunConfig, parse_config, read_yaml
from raw2s.evaluation import crossed_bootstrap, interval
from raw2s.methods import method_of
from raw2s.pipeline.artifacts import LIBRARIES, ArtifactStore
from raw2s.pipeline.execute import Done, execute
from raw2s.pipeline.local_ray import start_ray
from raw2s.pipeline.plan import plan_stages
from raw2s.pipeline.preflight import check
from raw2s.pipeline.progress import StageDisplay
from raw2s.pipeline.stage import inputs_first
from raw2s.pipeline.testing_stages import Test
from raw2s.pipeline.training_stages import TrainStudent
from raw2s.tasks import task_of
from raw2s.training.progress import WEIGHT
from raw2s.tuning.importance import importance_of
from raw2s.tuning.reading import load_sweeps
from raw2s.tuning.searched import Sweep
from raw2s.tuning.space import Point, tree_at
from raw2s.tuning.sweep import run_sweeps
from raw2s.tuning.trials import ranked, read_trials

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
HAND_SET = [1, 1, 2]
"""As the authors: half for the best teacher."""
RATE = "student_training.learning_rate={loguniform: [1.0e-4, 4.0e-3]}"
"""Searched too: it matters more than any knob of the loss (docs/testbed.md), and the best of the others depend on it."""


@dataclass(frozen=True, kw_only=True)
class Searched:
    """A task's sweep: its file, the run config that holds the values set by hand, and what the benchmark changes."""

    config: str
    base: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Size:
    seeds: tuple[int, ...]
    overrides: tuple[str, ...]


TASKS = {
    "slots": Searched(
        config="sweep_slots.yaml",
        base="demo.yaml",
        overrides=(RATE, "student_training.judged_examples=400", "sweep.concurrent=2"),
    ),
    "scenario": Searched(config="sweep_demo.yaml", base="demo_classification.yaml", overrides=(RATE,)),
}
SIZES = {
    # No scheduler: importance compares figures of the same epoch.
    "full": Size(seeds=(1, 2, 3, 4, 5), overrides=("sweep.trials=30", "sweep.scheduler=none", "task.n_test=null")),
    "tiny": Size(
        seeds=(1, 2),
        overrides=(
            "sweep.trials=2", "sweep.scheduler=none", "task.n_teacher=48", "task.n_student=24", "task.n_validation=16", "task.n_test=24",
            "teacher_training.epochs=1", "student_training.epochs=1", "labeling.beams=2",
        ),
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A way to weigh the teachers, and whether γ_max, λ_EDL and the learning rate are the sweep's best or set by hand."""

    weights: Literal["uniform", "swept", "hand-set", "devel", "raven"]
    values: Literal["swept", "hand-set"] = "swept"


REFERENCE = Setting(weights="uniform")
SETTINGS = (
    REFERENCE,
    Setting(weights="swept"),
    Setting(weights="hand-set"),
    Setting(weights="devel"),
    Setting(weights="raven"),
    Setting(weights="uniform", values="hand-set"),
)


def load(name: str, size: str, storage: Path) -> Sweep:
    task = TASKS[name]
    overrides = [*task.overrides, *SIZES[size].overrides, f"sweep.name={name}-{size}", f"storage={storage.resolve()}"]
    return load_sweeps(CONFIGS / task.config, overrides)[0]


def config_of(sweep: Sweep, best: Point, setting: Setting, base: Mapping[str, Any]) -> RunConfig:
    """The run config at the sweep's best point, with the setting's weights and values."""
    tree = tree_at(sweep.tree, sweep.knobs, best)
    entry = tree["methods"][0]
    by_hand: dict[str, Any] = {}
    if setting.values == "hand-set":
        by_hand, rate = base["methods"][0]["loss"], base["student_training"]["learning_rate"]
        tree["student_training"] = {**tree["student_training"], "learning_rate": rate}
    loss = {"name": "edl", **entry["loss"], **by_hand}
    method = "raven" if setting.weights == "raven" else entry["method"]
    weights = {"swept": tree["weights"]["loss"], "hand-set": HAND_SET, "devel": "devel"}.get(setting.weights, "uniform")
    return parse_config({**tree, "methods": [{**entry, "method": method, "loss": loss}], "weights": {"loss": weights}})


def tests_of(config: RunConfig, seeds: Sequence[int]) -> tuple[list[TrainStudent], list[Test]]:
    """The student of every training seed and its test; teachers and labels are those of the config's one seed."""
    planned = plan_stages(config, config.seeds[0]).students[0]
    student = cast("TrainStudent", planned.stage)
    students = [replace(student, name=f"{student.name}@{seed}", seed=seed) for seed in seeds]
    test = planned.test
    named = zip(students, seeds, strict=True)
    return students, [replace(test, name=f"{test.name}@{seed}", labeler=replace(test.labeler, model=own)) for own, seed in named]


def weights_of(config: RunConfig, students: Sequence[TrainStudent], done: Mapping[str, Done]) -> list[list[float]]:
    """What each seed's student was trained with; of RAVEN at the end of the kept epoch."""
    names = [teacher.name for teacher in config.teachers]
    if method_of(config.methods[0]).learned is not None:
        return [[done[student.name].artifact.metrics[WEIGHT + name] for name in names] for student in students]
    fitted = students[0].fitted
    if fitted is not None:
        found = fitted.read(done[fitted.name].artifact.folder).weights
        return [[found[name] for name in names]] * len(students)
    return [config.teacher_weights("loss")] * len(students)


def compared(counts: Mapping[Setting, list[Any]], score: Any) -> list[dict[str, Any]]:
    """Every setting's score a seed, their mean, and its difference to uniform weights; intervals hold test examples and seeds."""
    samples = crossed_bootstrap({str(setting): own for setting, own in counts.items()}, score, resamples=2000)
    per_seed = {setting: [float(score(own.mean(axis=0))) for own in arrays] for setting, arrays in counts.items()}
    return [
        {
            **asdict(setting),
            "per_seed": own,
            "score": float(np.mean(own)),
            "ci95": interval(samples[str(setting)]),
            "difference": float(np.mean(own) - np.mean(per_seed[REFERENCE])),
            "difference_ci95": interval(samples[str(setting)] - samples[str(REFERENCE)]),
        }
        for setting, own in per_seed.items()
    ]


def measure(name: str, size: str, storage: Path, out: Path) -> None:
    """The sweep and the comparison of one task, written after every part."""
    sweep, base, seeds = load(name, size, storage), read_yaml(CONFIGS / TASKS[name].base, []), SIZES[size].seeds
    for setting in SETTINGS:  # before hours of trials
        check(config_of(sweep, sweep.start, setting, base))
    start_ray(sweep.config(sweep.start).ray, dashboard=True)
    best = run_sweeps([sweep])[0].best
    trials = read_trials(storage.resolve() / sweep.settings.name, sweep)
    task = task_of(sweep.config(best.point).task)
    found: dict[str, Any] = {
        "size": size,
        "config": {key: value for key, value in sweep.tree.items() if key != "storage"}
        | {"sweep": sweep.settings.model_dump(mode="json")},
        "metric": task.metric.title,
        "teachers": [teacher.name for teacher in sweep.config(best.point).teachers],
        "trials": [
            {key: getattr(trial, key) for key in ("number", "values", "status", "epoch", "figure", "reason")} for trial in trials
        ],
        "best": best.number,
        "importance": importance_of(ranked(trials), sweep.knobs),
        "seeds": list(seeds),
    }
    environment = harness.environment(*LIBRARIES, "optuna")
    harness.write_part(out, name, found, environment)
    counts: dict[Setting, list[Any]] = {}
    weights: dict[Setting, list[list[float]]] = {}
    store = ArtifactStore(storage / "artifacts")
    for setting in SETTINGS:
        config = config_of(sweep, best.point, setting, base)
        students, tests = tests_of(config, seeds)
        with StageDisplay(Console()) as display:
            done = execute(inputs_first(tests), store=store, display=display, ray_config=config.ray)
        counts[setting] = [test.counts(done[test.name].artifact.folder) for test in tests]
        weights[setting] = weights_of(config, students, done)
        rows = [
            {**row, "weights_per_seed": own}
            for row, own in zip(compared(counts, task.metric.score), weights.values(), strict=True)
        ]
        found |= {"test_examples": len(counts[setting][0]), "settings": rows}
        harness.write_part(out, name, found, environment)


def main() -> None:
    parser = harness.parser(__doc__, "sweeps.json")
    parser.add_argument("--task", choices=list(TASKS), help="this one alone")
    parser.add_argument("--size", choices=list(SIZES), default="full")
    parser.add_argument("--storage", type=Path, default=Path("runs") / "sweeps")
    arguments = parser.parse_args()
    for name in [arguments.task] if arguments.task else TASKS:
        measure(name, arguments.size, arguments.storage, arguments.out)


if __name__ == "__main__":
    main()
