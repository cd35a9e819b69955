"""In place of Python for Ray's workers: asks the server for a process. `python -S -E client.py FOLDER default_worker.py ...`

Standard library only, and little of it: this is what every worker still has to start. The first client starts the server.
"""

import json
import os
import socket
import sys
import time

WAIT_SECONDS = 60.0
"""For a server that has just been started: its imports take five seconds, more on a busy machine."""


def main() -> None:
    folder, *arguments = sys.argv[1:]
    server = _connected(os.path.join(folder, "workers"))
    if server is None or not _forked(server, arguments):
        os.execv(sys.executable, [sys.executable, *arguments])


def _connected(path: str) -> socket.socket | None:
    """A connection to the server, which is started where there is none; None where it does not answer in time."""
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            server.connect(path)
            return server
        except OSError:
            server.close()
        try:
            os.close(os.open(path + ".started", os.O_CREAT | os.O_EXCL))
        except OSError:  # by another client
            time.sleep(0.05)
            continue
        source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))}
        if os.fork() == 0:
            os.setsid()
            os.execve(sys.executable, [sys.executable, "-m", "raw2s.forking.server", path], environment)
    return None


def _forked(server: socket.socket, arguments: list[str]) -> bool:
    """Whether the server has made the process."""
    request = json.dumps({"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd()}).encode()
    try:
        with server:
            socket.send_fds(server, [len(request).to_bytes(4, "big")], [0, 1, 2])
            server.sendall(request)
            return bool(server.recv(1))
    except OSError:
        return False


if __name__ == "__main__":
    main()
