"""The processor that a benchmark ran on."""

from pathlib import Path


def cpu_name() -> str:
    """As Linux calls it; empty where it does not say."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
