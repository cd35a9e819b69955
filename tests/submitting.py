"""What `ray job submit` needs: a checkout to send, and a head that is up."""

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tiny_runs import ROOT

NOT_YET_UP = ("Failed to connect to Ray", "No available agent")
"""What `ray job submit` says while a head starts: first its job server comes up, then the agent that starts jobs."""


def make_checkout(folder: Path) -> Path:
    """What a job gets as its working directory, in a new folder."""
    folder.mkdir()
    for part in ("raw2s", "jobs", "configs"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def once_up(submit: Callable[[], subprocess.CompletedProcess[str]]) -> subprocess.CompletedProcess[str]:
    """Submit, again and again until the head takes it."""
    for _ in range(60):
        done = submit()
        if not any(reason in done.stderr for reason in NOT_YET_UP):
            return done
        time.sleep(1)
    raise TimeoutError(done.stderr)
