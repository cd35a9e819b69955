"""In place of Python for Ray's workers: asks the server for a process. `python -S -E client.py FOLDER default_worker.py ...`

Standard library only, and little of it: this is what every worker still has to start. The first client starts the server.
"""

import ctypes
import json
import os
import select
import signal
import socket
import sys
import time

WAIT_SECONDS = 30.0
"""For the socket of a server that another client has just started."""
DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl(2)."""
SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def main() -> None:
    _end_with_raylet()
    folder, *arguments = sys.argv[1:]
    path = os.path.join(folder, "workers")
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        pass
    else:
        if os.fork() == 0:  # Ray ends the process that it has started with the worker that it made
            _become_server(folder, path)
    if not _forked(path, arguments):
        os.execv(sys.executable, [sys.executable, *arguments])


def _end_with_raylet() -> None:
    """End when the raylet does, which has started this process, also as the Python that it may become: else it would wait for a dead Ray."""
    ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGKILL)
    try:
        raylet = os.pidfd_open(int(os.environ["RAY_RAYLET_PID"]))
    except ProcessLookupError:
        sys.exit(1)  # it was too late for a signal
    if select.select([raylet], [], [], 0)[0]:
        sys.exit(1)
    os.close(raylet)


def _become_server(folder: str, path: str) -> None:
    os.setsid()
    log = os.open(os.path.join(folder, "log"), os.O_CREAT | os.O_WRONLY)
    for standard, file in enumerate((os.open(os.devnull, os.O_RDONLY), log, log)):
        os.dup2(file, standard)
    imports = os.pathsep.join(filter(None, [SOURCE, os.environ.get("PYTHONPATH")]))
    os.execve(sys.executable, [sys.executable, "-m", "raw2s.forking.server", path], os.environ | {"PYTHONPATH": imports})


def _forked(path: str, arguments: list[str]) -> bool:
    """Whether the server has made the process."""
    until = time.monotonic() + WAIT_SECONDS
    while not os.path.exists(path) and time.monotonic() < until:
        time.sleep(0.02)
    request = json.dumps({"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd()}).encode()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
            server.connect(path)
            socket.send_fds(server, [len(request).to_bytes(4, "big")], [0, 1, 2])
            server.sendall(request)
            return bool(server.recv(1))
    except OSError:  # no server, or it has died
        return False


if __name__ == "__main__":
    main()
