"""What every benchmark does alike: variants in turn after one round that asserts parity, the environment, and results as JSON."""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

MARK = "RAW2S_STARTED_BY"
"""In the environment of what a benchmark starts, and so in that of every process that it starts."""
RESULTS = Path(__file__).parent / "results"

Variants = Mapping[str, Callable[[], Any]]


def timed(
    variants: Variants,
    repeats: int,
    *,
    parity: Callable[[dict[str, Any]], None] = lambda found: None,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, dict[str, float]]:
    """Seconds of each variant, {"min", "median"} of the repeats; CPU time unless another clock is given.

    The variants run in turn, so that what disturbs the machine disturbs all. A first round warms up and gives `parity` what
    each returned, by name: it raises AssertionError where they do not agree, before anything is timed.
    """
    parity({name: variant() for name, variant in variants.items()})
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats):
        for name, variant in variants.items():
            start = clock()
            variant()
            seconds[name].append(clock() - start)
    return {name: summary(own) for name, own in seconds.items()}


def summary(seconds: Iterable[float]) -> dict[str, float]:
    """{"min", "median"}."""
    own = list(seconds)
    return {"min": min(own), "median": statistics.median(own)}


def least(measured: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The least of each variant, from what `timed` returns."""
    return {name: own["min"] for name, own in measured.items()}


def peak_mib() -> float:
    """The most memory that this process has held so far, libraries included."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def marked(mark: str) -> list[psutil.Process]:
    """The living processes with this mark; not all are children of who set it, for Ray's workers are forked from one that stands alone.

    A long title overwrites a process's environment, as that of Ray's agents does: then the mark is its parent's.
    """
    found, titled = {}, []
    for process in psutil.process_iter():
        try:
            own = process.environ()
            if own.get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = process
            elif not own:
                titled.append((process, process.ppid()))
        except psutil.Error:
            continue
    return [*found.values(), *(process for process, parent in titled if parent in found)]


def environment(*libraries: str, **more: Any) -> dict[str, Any]:
    """Date, machine and versions (None: not installed), in the one shape that every file under results/ has; `more` beside them."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} x {cpu_name()}",
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in libraries}},
        **more,
    }


def cpu_name() -> str:
    """As Linux calls it; empty where it does not say."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "")


def parser(about: str | None, out: str, *, parts: Iterable[str] = (), repeats: int | None = None) -> argparse.ArgumentParser:
    """`--out`, in results/ by default, and where given names of `parts` (none: all) and `--repeats`."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(parts)
    if names:
        made.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(names)}; all without a name")
    if repeats is not None:
        made.add_argument("--repeats", type=int, default=repeats)
    made.add_argument("--out", type=Path, default=RESULTS / out)
    return made


def write(out: Path, results: Mapping[str, Any]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def write_part(out: Path, part: str, found: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
    """Put one part's results into the file, with its own environment; the other parts stay as they were measured."""
    results = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    write(out, results | {part: {"environment": dict(environment), **found}})


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
