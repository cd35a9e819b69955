"""Imports once what Ray's workers need, then forks one whenever a client asks. `python -m raw2s.forking.server SOCKET`

Started by the first client in its environment, from which Ray's C++ takes the raylet and the job when it is imported. Ends with that
raylet. A child gets the client's environment, folder and output, and runs the client's script as Python would. Only a process of one
thread forks safely, so nothing here may start a thread or touch CUDA.
"""

import atexit
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from raw2s.imports import bulk_imports, without

MODULES = ("ray.data", "ray.train.torch", "ray.tune", "raw2s.labeling.actors", "raw2s.training.fit", "raw2s.training.loop")


def serve(path: str, modules: Sequence[str]) -> None:
    """Answer clients until the raylet ends. Does not return in a child.

    Raises RuntimeError where children would not be independent; the clients then do without, for the folder stays, with
    the log in it. A server that fails later takes it away, so that the next client starts another.
    """
    raylet = os.pidfd_open(int(os.environ["RAY_RAYLET_PID"]))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(path)
        listening.listen(64)  # clients wait from here on
        with _ending_with(raylet, path):
            _import(modules)
        if _draw_id() == _draw_id():
            raise RuntimeError("forked workers would draw the same random ids of Ray")
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children: their end is Ray's affair
        heard: list[Any] = [listening, raylet]
        while True:
            ready, _, _ = select.select(heard, [], [])
            if raylet in ready:
                _remove(path)
                return
            try:
                client, _ = listening.accept()
                with client:
                    request, files = _request(client)
                    if request and os.fork() == 0:
                        break
                    with suppress(OSError):  # it has gone meanwhile
                        client.sendall(b"1" if request else b"")
            except BaseException:
                _remove(path)  # the next client starts another server
                raise
            for file in files:
                os.close(file)
    _become(request, files, raylet)


@contextmanager
def _ending_with(raylet: int, path: str) -> Iterator[None]:
    """End this process with the raylet, at which nobody looks meanwhile."""

    def look(*_: object) -> None:
        if select.select([raylet], [], [], 0)[0]:
            _remove(path)
            os._exit(0)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, 0.5, 0.5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _remove(path: str) -> None:
    shutil.rmtree(Path(path).parent, ignore_errors=True)


def _import(modules: Sequence[str]) -> None:
    with bulk_imports():
        import ray.actor  # noqa: PLC0415

        class Drawn:
            """Ray draws an id for every actor class that it imports, and from then on all children would share its generator."""

            @staticmethod
            def from_random() -> Any:
                return ray.ActorClassID(os.urandom(ray.ActorClassID.size()))

        with without("mlflow"), patch("ray.actor.ActorClassID", Drawn):  # DeepSpeed's autotuner would load MLflow
            for module in modules:
                importlib.import_module(module)


def _draw_id() -> bytes:
    """A random id of Ray, as a child would draw it."""
    from ray._raylet import UniqueID  # noqa: PLC0415

    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, UniqueID.from_random().binary())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with open(reading, "rb") as drawn:
        return drawn.read()


def _request(client: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """What a client asks, and its three files; empty where it was cut off, or has hung up: nobody waits for a process then."""
    files: list[int] = []
    text = b""
    try:
        size, files, _, _ = socket.recv_fds(client, 4, 3)
        while len(text) < int.from_bytes(size, "big") and (part := client.recv(1 << 16)):
            text += part
        hung_up = select.select([client], [], [], 0)[0]  # it says nothing more before it is answered
        return {} if hung_up else json.loads(text), files
    except (OSError, ValueError):
        return {}, files


def _become(request: dict[str, Any], files: list[int], raylet: int) -> None:
    """Make this child the process that the client was to be, run its script, and end with the raylet at the latest."""

    def end_with_raylet() -> None:
        select.select([raylet], [], [])
        os._exit(1)  # a worker that has not yet met its raylet would wait for it for minutes

    threading.Thread(target=end_with_raylet, daemon=True).start()
    os.setsid()  # Ray kills a worker's whole process group when it ends
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for standard, file in enumerate(files):
        os.dup2(file, standard)
        os.close(file)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    known = set(sys.path)
    sys.path[:0] = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry and entry not in known]
    sys.argv = request["arguments"]
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # Python's own generator does so by itself
    status = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(status)  # Ray's own way out has been seen to wait for itself for ever (2.60, ~CoreWorkerProcessImpl)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    serve(sys.argv[1], MODULES)
