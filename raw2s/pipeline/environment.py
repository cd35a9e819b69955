"""The machine and the versions behind a run's numbers."""

import platform
from pathlib import Path

from raw2s.pipeline.artifacts import versions


def environment() -> dict[str, str]:
    """The machine and the versions behind the numbers."""
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {_cpu_name()}",
        **versions(),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()
