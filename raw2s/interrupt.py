"""Ctrl-C: the first ends a command within seconds and says how to go on, the second at once."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS = 8.0
"""How long the main thread may take to leave; then the process ends as it is."""
STATUS = 130
"""Of a process that Ctrl-C has ended, as shells have it."""


@contextmanager
def ending_on_interrupt(command: str) -> Iterator[None]:
    """Within it SIGINT ends the process with `STATUS`, whatever its threads wait for. Only from the main thread.

    The processes of a local Ray, and a job's on a cluster, end with their driver; a stage that is cut off is begun again.
    """
    said = threading.Event()
    hearing, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what is behind an & with SIGINT ignored
    written_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_listen, args=(hearing, command, said), daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:
        said.wait(1.0)
        sys.stdout.flush()
        os._exit(STATUS)  # Python would wait for the stages' threads
    finally:
        signal.set_wakeup_fd(written_before)
        signal.signal(signal.SIGINT, before)
        os.close(writing)


def _listen(hearing: int, command: str, said: threading.Event) -> None:
    """Hear signals as they come, even while the main thread is deep in C and Python cannot tell it."""
    while got := os.read(hearing, 1):
        if got[0] != signal.SIGINT:
            continue
        if said.is_set():
            os._exit(STATUS)
        print(
            f"\n{command}: stopping; what is finished is kept, and the same command resumes there (Ctrl-C again kills at once)",
            file=sys.stderr,
            flush=True,
        )
        said.set()
        deadline = threading.Timer(SECONDS, os._exit, (STATUS,))
        deadline.daemon = True
        deadline.start()
    os.close(hearing)
