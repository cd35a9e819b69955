"""Ray Tune over the student's loss: gamma_max, lambda_EDL and the teacher weights, on the cached teachers and labels.

Trials are judged on devel, never on test. The stages before the student run once, before the first trial; a trial is the
student stage of the base config with three settings changed, so a finished trial is an artifact like any other, and the
main job run with the best config finds it.
"""

import math
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, model_validator
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from rich.console import Console
from rich.table import Table

from raw2s.config import parse_config, read_yaml
from raw2s.errors import ConfigError, StageFailed
from raw2s.pipeline.artifacts import Artifact, ArtifactStore
from raw2s.pipeline.execute import build, execute
from raw2s.pipeline.local_ray import start_ray
from raw2s.pipeline.plan import plan_stages
from raw2s.pipeline.preflight import check
from raw2s.pipeline.progress import StageDisplay, brief
from raw2s.pipeline.stage import Stage, Work, inputs_first
from raw2s.section import Positive, Section
from raw2s.teachers.label_file import LabelFileSection
from raw2s.tracking import Tracker, tracked_run

METRIC = "validation_accuracy"


class Range(Section):
    low: float
    """Smallest value."""
    high: float
    """Largest value."""
    log: bool = False
    """Search on a logarithmic scale; low must be above zero."""

    @model_validator(mode="after")
    def _ordered(self) -> "Range":
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"low {self.low} must be below high {self.high}, and above zero with log: true")
        return self


class SweepConfig(Section):
    name: Annotated[str, Field(pattern=r"^[\w.-]+$")] = "sweep"
    """The sweep's folder under the base config's storage, and its name in MLflow."""
    base: Path
    """The run config whose first student is searched; relative to the sweep's own file."""
    set: list[str] = Field(default_factory=list)
    """`key=value` overrides of the base config."""
    trials: Positive = 8
    """How many settings are tried."""
    concurrent: Positive = 2
    """Trials at the same time; each needs the student's workers and their CPUs or GPUs."""
    grace_epochs: Positive = 1
    """Epochs a trial may run before it can be stopped early for doing worse than the others."""
    seed: int = 1
    """Seed of the search."""
    gamma_max: Range = Range(low=0.0, high=0.5)
    """Range of gamma_max."""
    kl_weight: Range = Range(low=1e-4, high=1.0, log=True)
    """Range of lambda_EDL."""


def load_sweep(path: Path, overrides: list[str]) -> tuple[SweepConfig, dict[str, Any]]:
    """The sweep at `path` and its base config as a checked tree. Raises ConfigError."""
    try:
        sweep = SweepConfig.model_validate(read_yaml(path, overrides))
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}; correct {path}") from None
    base = read_yaml(path.parent / sweep.base, sweep.set)
    config = parse_config(base)
    if config.student_training.keep != "best":
        raise ConfigError("student_training.keep: a sweep compares epochs on devel; set it to best in the base config")
    check(config)
    for entry, teacher in zip(base["teachers"], config.teachers, strict=True):
        if isinstance(teacher, LabelFileSection):
            entry["file"] = str(teacher.file.resolve())  # trials run in folders of their own
    return sweep, base


def run_sweep(sweep: SweepConfig, base: dict[str, Any], console: Console | None = None) -> dict[str, Any]:
    """Search, log every trial as a child run in MLflow, and write `<storage>/<name>/best.yaml`, which the main job takes.

    Returns the best trial's settings. Raises StageFailed when a stage before the trials fails, or every trial does.
    """
    console = console or Console()
    config = parse_config(base)
    folder = (config.storage / sweep.name).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    store = ArtifactStore(config.storage / "artifacts")
    with tracked_run(sweep.name, config.storage, sweep.model_dump(mode="json")) as tracker:
        start_ray(config.ray, dashboard=True)
        with StageDisplay(console) as display:
            student = plan_stages(config, config.seeds[0]).students[0].stage
            execute(inputs_first(student.inputs.values()), store=store, display=display, ray_config=config.ray)
        teachers = [teacher.name for teacher in config.teachers]
        space = {
            "gamma_max": tune.uniform(sweep.gamma_max.low, sweep.gamma_max.high),
            "kl_weight": (tune.loguniform if sweep.kl_weight.log else tune.uniform)(sweep.kl_weight.low, sweep.kl_weight.high),
            **{f"weight_{name}": tune.uniform(0.001, 1.0) for name in teachers},
        }
        trial = tune.with_resources(
            tune.with_parameters(_trial, base=base, store=str(store.root), folder=str(folder)), {"cpu": 0.1}
        )
        epochs = config.student_training.epochs
        tuner = tune.Tuner(
            trial,
            param_space=space,
            tune_config=tune.TuneConfig(
                metric=METRIC,
                mode="max",
                num_samples=sweep.trials,
                max_concurrent_trials=sweep.concurrent,
                search_alg=OptunaSearch(seed=sweep.seed),
                scheduler=ASHAScheduler(
                    time_attr="training_iteration", max_t=epochs, grace_period=min(sweep.grace_epochs, epochs), reduction_factor=2
                ),
            ),
            run_config=tune.RunConfig(
                name=f"tune-{tracker.parent_id}",
                storage_path=str(folder),
                verbose=0,
                callbacks=[_Log(tracker, teachers, console)],
            ),
        )
        results = tuner.fit()
        trials = [results[i] for i in range(len(results))]
        finished = [(r.config or {}, r.metrics) for r in trials if r.error is None and r.metrics and METRIC in r.metrics]
        if not finished:
            raise StageFailed(f"all {sweep.trials} trials failed, the first with {trials[0].error}; run the base config alone")
        best, metrics = max(finished, key=lambda trial: trial[1][METRIC])
        tree = with_settings(base, best)
        (folder / "best.yaml").write_text(yaml.safe_dump({**tree, "name": f"{config.name}-best"}, sort_keys=False))
        tracker.log_results({f"best/{METRIC}": metrics[METRIC]}, [folder / "best.yaml"])
    console.print(_table(finished, teachers, epochs))
    console.print(f"best     {folder / 'best.yaml'}\nmlflow   {tracker.where}", highlight=False, soft_wrap=True)
    return best


def simplex(draws: dict[str, float]) -> list[float]:
    """Weights on the simplex from draws in (0, 1]: normalised exponentials, uniform over it when the draws are."""
    exponentials = [-math.log(draw) + 1e-9 for draw in draws.values()]
    return [value / sum(exponentials) for value in exponentials]


def with_settings(base: dict[str, Any], settings: dict[str, float]) -> dict[str, Any]:
    """The base config with a trial's settings: the first student's gamma_max and kl_weight, and the loss weights."""
    draws = {key: value for key, value in settings.items() if key.startswith("weight_")}
    first, *others = base.get("methods", [{}])
    swept = {"gamma_max": round(settings["gamma_max"], 6), "kl_weight": float(f"{settings['kl_weight']:.6g}")}
    method = {**first, "loss": {**first.get("loss", {}), **swept}}
    weights = {**base.get("weights", {}), "loss": [round(weight, 6) for weight in simplex(draws)]}
    return {**base, "methods": [method, *others], "weights": weights}


def _trial(settings: dict[str, float], *, base: dict[str, Any], store: str, folder: str) -> None:
    """One trial, in its own process: the student stage with these settings; every epoch, and nothing else, reports to Tune."""
    config = parse_config(with_settings(base, settings))
    config = config.model_copy(update={"student_training": config.student_training.model_copy(update={"checkpoint_every": None})})
    stage = plan_stages(config, config.seeds[0]).students[0].stage
    artifacts = ArtifactStore(Path(store))
    found = artifacts.find(stage.kind, stage.key, print)
    if found is not None:
        tune.report({METRIC: found.metrics[METRIC], "validation_loss": found.metrics["validation_loss"]})
        return
    inputs = {needed.key: _finished(artifacts, needed) for needed in stage.inputs.values()}
    # A stopped trial's checkpoints stay with the sweep: resumed by another run they would skip the epochs Tune waits for.
    parts = Path(folder) / "checkpoints" / tune.get_context().get_trial_id()
    parts.mkdir(parents=True)
    build(stage, artifacts, Work(inputs=inputs, out=parts, parts=parts, callbacks=[TuneReportCallback()]))


def _finished(artifacts: ArtifactStore, stage: Stage) -> Artifact:
    artifact = artifacts.find(stage.kind, stage.key, print)
    if artifact is None:
        raise StageFailed(f"stage {stage.name} is missing or damaged; start the sweep again, it is rebuilt first")
    return artifact


class _Log(tune.Callback):
    """Every ended trial as a line and as a child run in MLflow."""

    def __init__(self, tracker: Tracker, teachers: list[str], console: Console) -> None:
        self.tracker, self.teachers, self.console = tracker, teachers, console

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks for a later restore; a connection and a terminal cannot be, and are not needed for it."""
        return {"teachers": self.teachers}

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._log(trial, failed=False)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._log(trial, failed=True)

    def _log(self, trial: Any, *, failed: bool) -> None:
        last = {k: v for k, v in (trial.last_result or {}).items() if k.startswith("validation_") or k == "training_iteration"}
        weights = dict(
            zip(self.teachers, simplex({k: v for k, v in trial.config.items() if k.startswith("weight_")}), strict=True)
        )
        settings = {"gamma_max": trial.config["gamma_max"], "kl_weight": trial.config["kl_weight"], "weights": weights}
        self.tracker.log_stage(f"trial-{trial.trial_id}", settings, last, key=trial.trial_id, cached=False, failed=failed)
        how = "failed" if failed else "ended"
        self.console.print(f"trial {trial.trial_id}: {how}, {brief(last)}", highlight=False, soft_wrap=True)


def _table(finished: list[tuple[dict[str, Any], dict[str, Any]]], teachers: list[str], epochs: int) -> Table:
    table = Table(title="trials, best first (devel)")
    for column in ("gamma_max", "kl_weight", *(f"w {name}" for name in teachers), "epochs", "accuracy"):
        table.add_column(column, justify="right")
    for settings, metrics in sorted(finished, key=lambda trial: -trial[1][METRIC]):
        weights = simplex({k: v for k, v in settings.items() if k.startswith("weight_")})
        ran = metrics["training_iteration"]
        table.add_row(
            f"{settings['gamma_max']:.3f}", f"{settings['kl_weight']:.2e}", *(f"{w:.2f}" for w in weights),
            f"{ran} (stopped)" if ran < epochs else str(ran), f"{metrics[METRIC]:.4f}",
        )  # fmt: skip
    return table
