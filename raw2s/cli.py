"""What each command of `raw2s` does (`raw2s.arguments` has what may follow it), and the jobs that call it."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from raw2s.arguments import command_parser
from raw2s.causes import MAKE_ROOM, is_full_disk
from raw2s.config import RunConfig, load_config
from raw2s.errors import ConfigError, StageFailed
from raw2s.imports import bulk_imports
from raw2s.interrupt import GOES_ON, ending_on_interrupt
from raw2s.labels.export import Format
from raw2s.looking import compare_command, report_command, status_command, store_command
from raw2s.methods import LOSSES, METHODS, PREFERENCE_LOSSES
from raw2s.storage import ARTIFACTS, Place
from raw2s.tasks import TASKS
from raw2s.teachers import TEACHERS


def _first_line(defined: Any) -> str:
    """Of the file that defines it: what it is."""
    return (sys.modules[defined.__module__].__doc__ or "").partition("\n")[0]


LISTED: dict[str, dict[str, str]] = {
    "tasks": {name: _first_line(kind.section) for name, kind in TASKS.items()},
    "methods": {name: method.about or _first_line(method.title) for name, method in METHODS.items()},
    "losses": {name: loss.about or _first_line(loss.title) for name, loss in (LOSSES | PREFERENCE_LOSSES).items()},
    "teachers": {name: _first_line(kind.section) for name, kind in TEACHERS.items()},
}
"""What `raw2s tasks|methods|losses|teachers` lists: by name what it is."""

DEMO = Path(__file__).parent / "configs" / "demo.yaml"
"""The built-in demo's config, in the package as in the checkout."""


def init_command(file: Path, labels: Sequence[Path], out: Path) -> None:
    """Write a first config for files."""
    from raw2s.models.load import quiet_transformers  # noqa: PLC0415
    from raw2s.starting.first_config import write_first_config  # noqa: PLC0415

    quiet_transformers()
    for line in write_first_config(file, labels, out):
        print(line)
    print(f"config   {out}: look at its comments, then raw2s plan {out}, raw2s run {out}")


def export_items_command(config: RunConfig, file: Path) -> None:
    """Write B for annotators."""
    from raw2s.starting.items import write_items_of_b  # noqa: PLC0415

    count, label = write_items_of_b(config, file)
    print(f"items    {file}: {count:,} of B; fill in column {label}, and name the file as a teacher")


def run_command(config: RunConfig) -> None:
    from raw2s.models.load import quiet_transformers  # torch takes seconds; --help and mistakes do not wait  # noqa: PLC0415
    from raw2s.pipeline.run import run_pipeline  # noqa: PLC0415

    quiet_transformers()
    run_pipeline(config)


def plan_command(config: RunConfig, gpu: str, memory: str | None, utilization: float, as_json: bool) -> None:
    """Print the stages in order, their keys, and which of them are finished; and what each takes of memory, time and disk."""
    from rich.console import Console  # noqa: PLC0415

    from raw2s.models.load import quiet_transformers  # noqa: PLC0415
    from raw2s.pipeline.plan import plan_stages  # noqa: PLC0415
    from raw2s.pipeline.preflight import check  # noqa: PLC0415
    from raw2s.pipeline.remote_store import open_store  # noqa: PLC0415
    from raw2s.pipeline.sizes import plan_sizes  # noqa: PLC0415
    from raw2s.report.sizes import sizes_as_json, sizes_tables  # noqa: PLC0415
    from raw2s.sizing.stage import device_of  # noqa: PLC0415

    quiet_transformers()
    device = device_of(gpu, memory, utilization)
    check(config)
    store = open_store(config.storage / ARTIFACTS)
    plans = [plan_stages(config, seed) for seed in config.seeds]
    sizes = plan_sizes(config, plans[0], device)
    if as_json:
        print(sizes_as_json(sizes, device, len(plans)))
        return
    for stage in (stage for plan in plans for stage in plan.in_order()):
        found = store.find(stage.kind, stage.key, lambda text: print(f"warning: {text}"))
        print(f"{stage.name:<28} {stage.kind}/{stage.key}  {'finished' if found else 'to do'}")
    Console().print(sizes_tables(sizes, device, len(plans)))


def label_command(config: RunConfig) -> None:
    """Run a config up to the label table."""
    from raw2s.models.load import quiet_transformers  # noqa: PLC0415
    from raw2s.pipeline.label import run_labels  # noqa: PLC0415

    quiet_transformers()
    run_labels(config)


def check_command(config: RunConfig) -> None:
    """Say what the teachers promise of an ensemble, before a student trains."""
    from raw2s.models.load import quiet_transformers  # noqa: PLC0415
    from raw2s.pipeline.check import run_check  # noqa: PLC0415

    quiet_transformers()
    run_check(config)


def export_labels_command(folder: Place, form: Format, out: Path | None) -> None:
    """Write a label table as a data set."""
    from raw2s.pipeline.label import export_labels  # noqa: PLC0415

    made = export_labels(folder, form, out)
    print(f"data set {made}: datasets.load_from_disk({str(made)!r}), or {made / 'labels.jsonl'}")


def list_command(what: str) -> None:
    """Print the names that a config knows, each with what it is."""
    for name, about in LISTED[what].items():
        print(f"{name:<16} {about}")


def sweep_command(path: Path, overrides: Sequence[str]) -> None:
    """Search the values of a config's keys."""
    from raw2s.models.load import quiet_transformers  # noqa: PLC0415
    from raw2s.tuning.reading import load_sweeps  # noqa: PLC0415

    quiet_transformers()
    sweeps = load_sweeps(path, list(overrides))
    from raw2s.tuning.sweep import run_sweeps  # Tune takes seconds; a mistake does not wait  # noqa: PLC0415

    run_sweeps(sweeps)


def export_command(run: Place, student: str | None, out: Path) -> None:
    """Make a folder of a finished run's student."""
    from raw2s.models.load import quiet_transformers  # noqa: PLC0415
    from raw2s.pipeline.export import export_student  # noqa: PLC0415

    quiet_transformers()
    sheet = export_student(run, student, out)
    print(
        f"student  {sheet.student} of {run}, {sheet.test.title} {sheet.test.value:.3f} on {sheet.test.examples:,} test examples"
    )
    print(f"use      raw2s predict {out} --input FILE --output FILE")


def predict_command(arguments: argparse.Namespace) -> None:
    """Answer the rows of a file."""
    from raw2s.models.load import quiet_transformers  # noqa: PLC0415
    from raw2s.use.asking import MostDoubtful  # noqa: PLC0415
    from raw2s.use.predict import predict_file  # noqa: PLC0415
    from raw2s.use.sheet import find_sheet  # noqa: PLC0415

    quiet_transformers()
    if arguments.workers is not None and arguments.workers < 1:
        raise ConfigError(f"--workers {arguments.workers}: nobody would answer; give 1 or more")
    wished, ask_file = arguments.accuracy, arguments.ask_file or arguments.output.with_name("ask.jsonl")
    try:
        threshold = None if wished is None else find_sheet(arguments.model)[1].threshold(wished)
        asked = None if arguments.ask is None else MostDoubtful(count=arguments.ask, file=ask_file)
        spread = None if arguments.workers is None else partial(_over_ray, workers=arguments.workers)
        found = predict_file(arguments.model, arguments.input, arguments.output, threshold=threshold, asked=asked, spread=spread)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    problem = f" ({found.first_problem})" if found.first_problem else ""
    print(f"answers  {arguments.output}: {found.rows:,} rows, {found.without_answer:,} of them without an answer{problem}")
    if threshold is not None:
        low, high = threshold.ci95
        print(
            f"abstains {found.abstained:,} times, below a probability of {threshold.probability:.4f}: on devel {threshold.right:,} "
            f"of the {threshold.kept:,} answers above it are right [{low:.3f}, {high:.3f}], of {threshold.examples:,}"
        )
    if asked is not None:
        print(f"ask      {asked.file}: the {len(asked.kept):,} most doubtful; fill in the labels, and name it as a teacher")


def _over_ray(source: str, table: Any, *, workers: int) -> Any:
    from raw2s.config import RayConfig  # noqa: PLC0415
    from raw2s.pipeline.local_ray import start_ray  # noqa: PLC0415
    from raw2s.use.spread import answer_spread  # noqa: PLC0415

    start_ray(RayConfig(num_cpus=workers + 1))
    return answer_spread(source, table, workers)


def publish_command(folder: Path, repository: str) -> None:
    """Upload a student's folder to the hub."""
    from raw2s.use.publish import publish  # noqa: PLC0415

    try:
        print(f"student  {publish(folder, repository)}, private until its page says otherwise")
    except ValueError as error:
        raise ConfigError(str(error)) from None


def guarded(command: str, work: Callable[[], int | None], said: str = GOES_ON) -> int:
    """The exit status of `work`: a user's mistake is one line and 2, a failed stage one line and 1; Ctrl-C ends the process.

    `said`: what Ctrl-C is answered with.
    """
    try:
        with ending_on_interrupt(command, said), bulk_imports():  # what a command loads, it has until it ends
            status = work()
            sys.stdout.flush()
    except BrokenPipeError:  # `raw2s plan CONFIG | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ConfigError, StageFailed) as error:
        print(f"{command}: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except OSError as error:
        if not is_full_disk(error):
            raise
        print(f"{command}: {error}; {MAKE_ROOM}", file=sys.stderr)
        return 1
    return status or 0


def main(argv: Sequence[str] | None = None) -> int:
    arguments = command_parser(list(LISTED)).parse_args(argv)
    work: dict[str, Callable[[], int | None]] = {
        "demo": lambda: run_command(load_config(DEMO, arguments.set)),
        "init": lambda: init_command(arguments.file, arguments.labels, arguments.out),
        "export-items": lambda: export_items_command(load_config(arguments.config, arguments.set), arguments.file),
        "run": lambda: run_command(load_config(arguments.config, arguments.set)),
        "plan": lambda: plan_command(
            load_config(arguments.config, arguments.set), arguments.gpu, arguments.memory, arguments.mfu, arguments.json
        ),
        "sweep": lambda: sweep_command(arguments.config, arguments.set),
        "label": lambda: label_command(load_config(arguments.config, arguments.set)),
        "check": lambda: check_command(load_config(arguments.config, arguments.set)),
        "status": lambda: status_command(arguments),
        "report": lambda: report_command(arguments.run),
        "compare": lambda: compare_command(arguments.runs, arguments.out),
        "labels": lambda: export_labels_command(arguments.folder, arguments.format, arguments.to),
        "export": lambda: export_command(arguments.run, arguments.student, arguments.folder),
        "predict": lambda: predict_command(arguments),
        "store": lambda: store_command(arguments.storage, arguments.verify, arguments.delete),
        "publish": lambda: publish_command(arguments.folder, arguments.repository),
        **{name: partial(list_command, name) for name in LISTED},
    }
    said = "" if arguments.command == "status" else GOES_ON  # which only looks
    return guarded(f"raw2s {arguments.command}", work[arguments.command], said)


if __name__ == "__main__":
    sys.exit(main())
