"""Temporary folders of training workers, which may be killed at any moment: the next worker on the machine deletes what they left.

A process holds a lock on each of its folders, which ends with it. That tells a living one's, another container's too.
"""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

_PREFIX = "raw2s-training-"
_locks: dict[Path, int] = {}
"""Of this process's folders."""


def scratch(what: str) -> Path:
    """A new temporary folder of this process; whoever is done with it deletes it."""
    for gone in [folder for folder in _locks if not folder.exists()]:
        os.close(_locks.pop(gone))
    new = Path(tempfile.mkdtemp(prefix="raw2s-new-"))
    lock = os.open(new, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    # Only now has it a name that `sweep` looks for: it finds it locked.
    folder = new.rename(new.with_name(f"{_PREFIX}{what}-{new.name.removeprefix('raw2s-new-')}"))
    _locks[folder] = lock
    return folder


def sweep() -> None:
    """Delete the folders on this machine whose process is gone."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # gone, or another user's
            lock = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)
