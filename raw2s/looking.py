"""What the commands do that look at runs, wherever these lie: status, report, compare, store, whose --delete alone changes something."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from raw2s.config import load_config
from raw2s.errors import ConfigError
from raw2s.storage import Place


def status_command(arguments: argparse.Namespace) -> int:
    """Say how far a run is; returns 0 where it is done, 3 while it runs, 4 where it failed or was killed."""
    from rich.console import Console  # noqa: PLC0415

    from raw2s.report.progress import models, status_table  # noqa: PLC0415
    from raw2s.status import RunStatus  # noqa: PLC0415
    from raw2s.storage.copies import local  # pyarrow  # noqa: PLC0415

    run: Place = arguments.run
    if isinstance(run, Path) and not run.is_dir():
        config = load_config(run, arguments.set)
        run = config.storage / config.name
    console = Console()
    while True:
        status = RunStatus.read(run)
        if status is None:
            raise ConfigError(f"{run}: no status.json that this version reads; give the folder of a run, <storage>/<name>")
        if arguments.watch and console.is_terminal:
            console.clear()
        console.print(status_table(status))
        outcome = status.now()
        if not arguments.watch or outcome != "running":
            break
        time.sleep(arguments.watch)
    if arguments.models:
        console.print("\n".join(models(status, local(run).parent)), highlight=False, soft_wrap=True, markup=False)
    return {"done": 0, "running": 3}.get(outcome, 4)


def report_command(run: Place) -> None:
    """Print a finished run's closing table again."""
    from rich.console import Console  # noqa: PLC0415

    from raw2s.pipeline.finished import finished_results  # noqa: PLC0415
    from raw2s.report import closing_table  # noqa: PLC0415
    from raw2s.storage.copies import gathered  # pyarrow  # noqa: PLC0415

    Console().print(closing_table(finished_results(gathered(run))))
    print(f"report   {run / 'report.html'}")


def compare_command(runs: Sequence[Place], out: Path) -> None:
    """Set several finished runs side by side."""
    from rich.console import Console  # noqa: PLC0415

    from raw2s.models.load import quiet_transformers  # noqa: PLC0415
    from raw2s.pipeline.compare import compare_runs  # noqa: PLC0415
    from raw2s.report.compared import compared_table, write_compared  # noqa: PLC0415

    quiet_transformers()
    comparison = compare_runs(runs)
    console = Console()
    console.print(compared_table(comparison))
    console.print(f"report   {write_compared(comparison, out)}", highlight=False, soft_wrap=True, markup=False)


def store_command(storage: Place, verify: bool, delete: bool) -> None:
    """Say what lies in a storage, and delete what no run uses."""
    from raw2s.keeping import tell  # pyarrow  # noqa: PLC0415

    if isinstance(storage, Path) and not storage.is_dir():
        raise ConfigError(f"{storage}: no such folder; give the storage of a config")
    for line in tell(storage, verify=verify, remove_unused=delete):
        print(line, flush=True)
