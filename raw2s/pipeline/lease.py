"""One holder of a prefix at a time, where there are no locks: an object that its holder writes anew every few seconds.

A holder on this machine is told by a lock on its disk, at once. One elsewhere is told by waiting whether it writes: no clocks are compared.
"""

import fcntl
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from raw2s.storage import Uri
from raw2s.storage.copies import local
from raw2s.storage.files import read, remove, write

HOLDER = ".holder"
BEAT_SECONDS = 10.0
WAIT_SECONDS = 35.0
"""A holder that has written nothing for so long is dead."""


@contextmanager
def leased(folder: Uri) -> Iterator[bool]:
    """Hold `folder` while its block runs; false, and nothing is held, where another process holds it."""
    here = local(folder)
    here.parent.mkdir(parents=True, exist_ok=True)
    with here.with_name(f"{here.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        if _held_elsewhere(folder / HOLDER):
            yield False
            return
        ended = threading.Event()
        beating = threading.Thread(target=_beat, args=(folder / HOLDER, ended), daemon=True)
        write(folder / HOLDER, _mark())
        beating.start()
        try:
            yield True
        finally:
            ended.set()
            beating.join()
            with suppress(OSError):  # a store that no longer answers leaves a dead holder
                remove(folder / HOLDER)


def _held_elsewhere(holder: Uri) -> bool:
    found = read(holder)
    if found is None or found.decode().split()[0] == socket.gethostname():  # whose lock we have
        return False
    time.sleep(WAIT_SECONDS)
    return read(holder) not in (found, None)


def _mark() -> bytes:
    return f"{socket.gethostname()} {uuid.uuid4().hex}".encode()


def _beat(holder: Uri, ended: threading.Event) -> None:
    while not ended.wait(BEAT_SECONDS):
        with suppress(OSError):  # the next one may pass
            write(holder, _mark())
