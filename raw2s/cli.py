"""The command line: `raw2s run|plan|sweep|report`, and the jobs that call it."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from raw2s.config import RunConfig, describe_keys, load_config
from raw2s.errors import ConfigError, StageFailed


def run_command(config: RunConfig) -> None:
    from raw2s.models.load import quiet_transformers  # torch takes seconds; --help and mistakes do not wait  # noqa: PLC0415
    from raw2s.pipeline.run import run_pipeline  # noqa: PLC0415

    quiet_transformers()
    run_pipeline(config)


def plan_command(config: RunConfig) -> None:
    """Print the stages in order, their keys, and which of them are finished."""
    from raw2s.pipeline.artifacts import ArtifactStore  # noqa: PLC0415
    from raw2s.pipeline.plan import plan_stages  # noqa: PLC0415
    from raw2s.pipeline.preflight import check  # noqa: PLC0415

    check(config)
    store = ArtifactStore(config.storage / "artifacts")
    for seed in config.seeds:
        for stage in plan_stages(config, seed).in_order():
            found = store.find(stage.kind, stage.key, lambda text: print(f"warning: {text}"))
            print(f"{stage.name:<28} {stage.kind}/{stage.key}  {'finished' if found else 'to do'}")


def sweep_command(path: Path, overrides: Sequence[str]) -> None:
    from raw2s.tuning.sweep import load_sweep, run_sweep  # noqa: PLC0415

    run_sweep(*load_sweep(path, list(overrides)))


def report_command(folder: Path) -> None:
    """Print a finished run's closing table again."""
    from rich.console import Console  # noqa: PLC0415

    from raw2s.report import closing_table  # noqa: PLC0415
    from raw2s.results import Results  # noqa: PLC0415

    try:
        results = Results.read(folder)
    except OSError:
        raise ConfigError(f"{folder}: no results.json here; give the folder of a finished run, <storage>/<name>") from None
    except ValueError:
        raise ConfigError(f"{folder}: its results.json was written by another version of raw2s; run the config again") from None
    Console().print(closing_table(results))
    print(f"report   {folder / 'report.html'}")


def with_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="put a value over the config; may be repeated"
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "keys of a config, with their defaults:\n" + "\n".join(f"  {line}" for line in describe_keys())


def guarded(command: str, work: Callable[[], None]) -> int:
    """The exit status of `work`: a user's mistake is one line and 2, a failed stage one line and 1."""
    try:
        work()
    except (ConfigError, StageFailed) as error:
        print(f"{command}: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="raw2s", description="Bayesian WeakS-to-Strong on a Ray cluster.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("run", "run a config's pipeline"),
        ("plan", "list its stages and which are finished"),
        ("sweep", "search with Ray Tune"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("config", type=Path)
        with_config(command)
    report = commands.add_parser("report", help="print a finished run's table again")
    report.add_argument("run", type=Path, help="<storage>/<name>")
    arguments = parser.parse_args(argv)
    work = {
        "run": lambda: run_command(load_config(arguments.config, arguments.set)),
        "plan": lambda: plan_command(load_config(arguments.config, arguments.set)),
        "sweep": lambda: sweep_command(arguments.config, arguments.set),
        "report": lambda: report_command(arguments.run),
    }
    return guarded(f"raw2s {arguments.command}", work[arguments.command])


if __name__ == "__main__":
    sys.exit(main())
