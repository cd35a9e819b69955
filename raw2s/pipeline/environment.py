"""The machine and the versions behind a run's numbers."""

import platform
import shlex
import subprocess
import sys
from pathlib import Path

from raw2s.pipeline.artifacts import versions

PACKAGE = Path(__file__).resolve().parents[2]
"""Where the package lies: of a checkout, its root."""


def environment() -> dict[str, str]:
    """The machine and the versions behind the numbers."""
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {_cpu_name()}",
        **versions(),
        **({"commit": commit} if (commit := commit_of(PACKAGE)) else {}),
    }


def commit_of(folder: Path) -> str | None:
    """The git commit of a checkout, and whether files differ from it; None where `folder` is none."""
    asked = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=, changed"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said.stdout.strip() or None if (folder / ".git").exists() else None


def command() -> str:
    """What this process was started with, as it can be pasted into a shell."""
    program, *arguments = sys.argv
    named = ["raw2s"] if Path(program).name == "raw2s" else ["python", program]
    return shlex.join([*named, *arguments])


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()
