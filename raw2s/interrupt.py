"""Ctrl-C and SIGTERM: the first ends a command within seconds and says how to go on, the second at once."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

SECONDS = 8.0
"""How long the main thread may take to leave; then the process ends as it is."""
STATUS = 130
"""Of a process that Ctrl-C has ended, as shells have it."""
ENDING = {signal.SIGINT: STATUS, signal.SIGTERM: 143}
"""The signals that end a command, and its status then."""
GOES_ON = "stopping; what is finished is kept, and the same command resumes there (Ctrl-C again kills at once)"


@contextmanager
def ending_on_interrupt(command: str, said: str = GOES_ON) -> Iterator[None]:
    """Within it SIGINT and SIGTERM end the process with their status, whatever its threads wait for. Only from the main thread.

    The processes of a local Ray, and a job's on a cluster, end with their driver; a stage that is cut off is begun again. `said`
    is told at once; empty, nothing is.
    """
    heard: list[int] = []
    raised: list[int] = []

    def interrupt(number: int, frame: Any) -> None:
        raised.append(number)
        raise KeyboardInterrupt

    hearing, writing = os.pipe()
    os.set_blocking(writing, False)
    before = {number: signal.getsignal(number) for number in ENDING}
    for number in ENDING:
        signal.signal(number, interrupt)  # a shell starts what is behind an & with SIGINT ignored
    written_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_listen, args=(hearing, f"\n{command}: {said}" if said else "", heard), daemon=True).start()
    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # Ray makes the latter of SIGTERM
        if not _filled(heard):
            raise
    finally:
        # Also where what it cut off has ended otherwise: a stage whose workers went first has failed.
        if heard or (raised and _filled(heard)):
            with suppress(OSError, ValueError):  # of a pipe whose reader the same Ctrl-C has ended
                sys.stdout.flush()
            os._exit(ENDING[signal.Signals(heard[0])])  # Python would wait for the stages' threads
        signal.set_wakeup_fd(written_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writing)


def _filled(heard: list[int]) -> bool:
    """Whether the listener, which is a thread, has heard a signal, or does within a second."""
    until = time.monotonic() + 1.0
    while not heard and time.monotonic() < until:
        time.sleep(0.01)
    return bool(heard)


def _listen(hearing: int, said: str, heard: list[int]) -> None:
    """Hear signals as they come, even while the main thread is deep in C and Python cannot tell it."""
    while got := os.read(hearing, 1):
        if got[0] not in ENDING:
            continue
        status = ENDING[signal.Signals(got[0])]
        if heard:
            os._exit(status)
        deadline = threading.Timer(SECONDS, os._exit, (status,))
        deadline.daemon = True
        deadline.start()
        if said:
            with suppress(OSError, ValueError):  # of `2>&1 | tee log` the same Ctrl-C ends tee
                print(said, file=sys.stderr, flush=True)
        heard.append(got[0])  # last: the main thread, which waits for it, ends the process at once
    os.close(hearing)
