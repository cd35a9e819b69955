"""What a stage's failure is told as: in one sentence, and of a full disk which it may be."""

import shutil
import tempfile
from pathlib import Path

from raw2s.causes import cause, is_full_disk
from raw2s.errors import StageFailed
from raw2s.storage import Place
from raw2s.storage.copies import local


def reason_of(error: BaseException, root: Place) -> str:
    """Why a stage that writes into the storage's `root` failed."""
    if not isinstance(error, StageFailed) and is_full_disk(error):
        disks = ", ".join(
            f"{folder} has {_free_mib(folder):,.1f} MiB free" for folder in (local(root), Path(tempfile.gettempdir()))
        )
        return (
            f"a disk has no room for what it writes ({cause(error)}): here {disks}; make room, and run the same command again, "
            "which goes on from what is finished"
        )
    return str(error) if isinstance(error, StageFailed) else cause(error)


def _free_mib(folder: Path) -> float:
    there = next(own for own in (folder, *folder.parents) if own.exists())
    return shutil.disk_usage(there).free / 2**20
