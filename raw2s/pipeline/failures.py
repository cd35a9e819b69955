"""What a stage's failure is told as: in one sentence, and of a full disk which it may be."""

import shutil
import tempfile
from pathlib import Path

from raw2s.causes import MAKE_ROOM, cause, is_full_disk
from raw2s.errors import StageFailed
from raw2s.storage import Place
from raw2s.storage.copies import local


def reason_of(error: BaseException, root: Place) -> str:
    """Why a stage that writes into the storage's `root` failed."""
    if isinstance(error, StageFailed):
        return str(error)
    if not is_full_disk(error):
        return cause(error)
    disks = ", ".join(f"{folder} has {_free_mib(folder):,.1f} MiB free" for folder in (local(root), Path(tempfile.gettempdir())))
    return f"a disk has no room for what it writes ({cause(error)}): here {disks}; {MAKE_ROOM}"


def _free_mib(folder: Path) -> float:
    there = next(own for own in (folder, *folder.parents) if own.exists())
    return shutil.disk_usage(there).free / 2**20
