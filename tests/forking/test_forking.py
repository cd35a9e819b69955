"""Workers forked from a server, by real processes: what a child is, when the server ends, and what happens without one.

That Ray's own workers run so is what every slow test shows.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch

from raw2s.forking import client, start
from raw2s.forking.threads import use_own_threads

CLIENT = [sys.executable, "-S", "-E", client.__file__]
SCRIPT = """
import json, os, random, sys
import numpy as np
from ray._raylet import UniqueID
said = {
    "pid": os.getpid(), "parent": os.getppid(), "group": os.getpgid(0), "arguments": sys.argv, "folder": os.getcwd(),
    "environment": dict(os.environ), "path": sys.path, "loaded": "ray.data" in sys.modules, "main": __name__,
    "drawn": [UniqueID.from_random().hex(), random.random(), np.random.random()],
}
print(json.dumps(said), flush=True)
print("to standard error", file=sys.stderr, flush=True)
"""
SERVE = "import sys; from raw2s.forking.server import serve; serve(sys.argv[1], sys.argv[2].split())"


@pytest.fixture
def raylet():
    """Whose end is the server's."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def ask(folder: Path, script: Path, *arguments: str, **environment: str) -> list[subprocess.CompletedProcess]:
    """Two clients, one after the other."""
    command = [*CLIENT, str(folder), str(script), *arguments]
    return [
        subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=100, cwd=script.parent)
        for _ in range(2)
    ]


def until(true, seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    return true()


@pytest.mark.slow  # the imports of a server
@pytest.mark.timeout(240)
def test_a_child_is_the_process_that_the_client_was_to_be(tmp_path, raylet):
    script, folder = tmp_path / "script.py", tmp_path / "server"
    script.write_text(SCRIPT)
    own = {"RAY_RAYLET_PID": str(raylet.pid), "GIVEN": "for this one", "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    asked = ask(folder, script, "a", "b c", **own)
    said = [json.loads(run.stdout) for run in asked]
    server = said[0]["parent"]
    assert said[1]["parent"] == server != os.getpid(), "the second client found the first one's server"
    for run, child in zip(asked, said, strict=True):
        assert run.stderr.endswith("to standard error\n")
        assert child["arguments"] == [str(script), "a", "b c"] and child["main"] == "__main__"
        assert child["folder"] == str(tmp_path) and str(tmp_path) in child["path"]
        assert (
            child["environment"].items() >= own.items()
            and "DS_ACCELERATOR" not in child["environment"].keys() - os.environ.keys()
        )
        assert child["loaded"] and child["group"] == child["pid"], "Ray kills a worker's whole group"
    assert all(one != other for one, other in zip(said[0]["drawn"], said[1]["drawn"], strict=True)), "generators were shared"
    assert folder.stat().st_mode & 0o777 == 0o700
    script.write_text("import os, time; print(os.getpid(), flush=True); time.sleep(600)")
    command = [*CLIENT, str(folder), str(script)]
    with subprocess.Popen(command, env=os.environ | own, stdout=subprocess.PIPE, text=True) as asking:
        sleeping = int(asking.stdout.readline())
        raylet.kill()
        raylet.wait()
        assert until(lambda: not Path(f"/proc/{sleeping}").exists()), "a worker outlived its raylet"
    assert until(lambda: not folder.exists() and not Path(f"/proc/{server}").exists()), "the server outlived its raylet"


def test_without_a_server_a_client_is_python(tmp_path, raylet):
    (script := tmp_path / "script.py").write_text("import os, sys; print(os.getpid(), sys.argv[1:])")
    folder = tmp_path / "server"
    folder.mkdir()  # as if another client had started one
    (folder / "workers").touch()  # and it had died
    for run in ask(folder, script, "a", "b c", RAY_RAYLET_PID=str(raylet.pid)):
        assert run.stdout.split(maxsplit=1)[1] == "['a', 'b c']\n", run.stderr


@contextmanager
def serving(folder: Path, modules: str, raylet: subprocess.Popen) -> Iterator[subprocess.Popen]:
    """A server that has begun to listen, without a client that started it."""
    environment = os.environ | {"RAY_RAYLET_PID": str(raylet.pid), "PYTHONPATH": os.pathsep.join([str(folder.parent), *sys.path])}
    folder.mkdir()
    command = [sys.executable, "-c", SERVE, str(folder / "workers"), modules]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as server:
        try:
            assert until((folder / "workers").exists)
            yield server
        finally:
            server.kill()


def test_clients_that_are_gone_before_their_answer_cost_nobody_the_server(tmp_path, raylet):
    """One hangs up in the middle of its request, two after it: no process is made for them, and the next client gets one."""
    (script := tmp_path / "script.py").write_text("import os, sys; open(sys.argv[1], 'w').write(str(os.getppid()))")
    folder = tmp_path / "server"
    with serving(folder, "", raylet) as server:
        for name, asked in (("cut", 9), ("gone", None), ("too", None)):
            request = {"arguments": [str(script), str(tmp_path / name)], "environment": dict(os.environ), "folder": str(tmp_path)}
            text = json.dumps(request).encode()
            with socket.socket(socket.AF_UNIX) as client:  # before the server serves: it still imports
                client.connect(str(folder / "workers"))
                socket.send_fds(client, [len(text).to_bytes(4, "big")], [0, 1, 2])
                client.sendall(text[:asked])
        for run in ask(folder, script, str(tmp_path / "made"), RAY_RAYLET_PID=str(raylet.pid)):
            assert run.returncode == 0, run.stderr
        assert until((tmp_path / "made").exists) and until(lambda: (tmp_path / "made").read_text() == str(server.pid))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "script.py", "server"]
        raylet.kill()
        assert server.wait(timeout=60) == 0
    assert not folder.exists()


def test_a_server_that_fails_while_it_serves_makes_way_for_another(tmp_path, raylet):
    (tmp_path / "failing.py").write_text("import os; fork, left = os.fork, [1, 1]\nos.fork = lambda: left.pop() and fork()")
    (script := tmp_path / "script.py").touch()
    folder = tmp_path / "server"
    with serving(folder, "failing", raylet) as server:
        command, own = [*CLIENT, str(folder), str(script)], {"RAY_RAYLET_PID": str(raylet.pid)}
        run = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, timeout=100)
        assert run.returncode == 0, "the client has become Python"
        assert server.wait(timeout=60)
    assert not folder.exists()


SPAWNING = 'RAY_RAYLET_PID=$$ "$@" & wait'
"""Of a shell that stands for the raylet: it starts a client."""


@pytest.fixture
def spawned(tmp_path):
    """Gives a shell that stands for the raylet and has started a client, and the client; the server's folder is there."""
    (script := tmp_path / "script.py").write_text("import time; time.sleep(600)")
    (folder := tmp_path / "server").mkdir()
    shells = []

    def spawn() -> tuple[subprocess.Popen, psutil.Process]:
        shells.append(subprocess.Popen(["sh", "-c", SPAWNING, "sh", *CLIENT, str(folder), str(script)]))
        shell = psutil.Process(shells[-1].pid)
        assert until(shell.children)
        return shells[-1], shell.children()[0]

    yield spawn
    for shell in shells:
        shell.kill()
        shell.wait()


def ends_with(raylet: subprocess.Popen, process: psutil.Process) -> bool:
    raylet.kill()
    raylet.wait()
    return until(lambda: not process.is_running())


def test_a_client_that_waits_ends_with_the_raylet(tmp_path, spawned):
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "server" / "workers"))
        silent.listen()
        raylet, started = spawned()
        asked, _ = silent.accept()
        with asked:
            assert ends_with(raylet, started)


def test_the_python_that_a_client_becomes_ends_with_the_raylet(tmp_path, spawned):
    (tmp_path / "server" / "workers").touch()
    raylet, started = spawned()
    assert until(lambda: started.cmdline() == [sys.executable, str(tmp_path / "script.py")])
    assert ends_with(raylet, started)


def test_a_client_whose_raylet_is_gone_starts_nothing(tmp_path, raylet):
    (script := tmp_path / "script.py").write_text("print('started')")
    raylet.kill()
    raylet.wait()
    folder = tmp_path / "server"
    assert [(run.returncode, run.stdout) for run in ask(folder, script, RAY_RAYLET_PID=str(raylet.pid))] == [(1, "")] * 2
    assert not folder.exists()


def test_children_that_would_share_rays_generator_are_refused(tmp_path, raylet):
    """A module that draws an id while it is imported, as Ray's do where nothing prevents it."""
    (tmp_path / "drawing.py").write_text("from ray._raylet import UniqueID; UniqueID.from_random()")
    environment = os.environ | {"RAY_RAYLET_PID": str(raylet.pid), "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    run = subprocess.run(
        [sys.executable, "-c", SERVE, str(tmp_path / "workers"), "drawing"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert run.returncode and "the same random ids" in run.stderr


@pytest.mark.parametrize(("platform", "gpu"), [("darwin", False), ("linux", True)])
def test_elsewhere_workers_start_as_ever(monkeypatch, platform, gpu):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(start.Path, "exists", lambda path: gpu)
    assert start.forked_workers() == {}


def test_every_ray_has_a_server_of_its_own():
    one, other = start.forked_workers(), start.forked_workers()
    assert one != other and not Path(one["py_executable"].split()[-1]).exists()


def test_a_worker_uses_as_many_threads_as_it_has_cpus(monkeypatch):
    before = torch.get_num_threads()
    try:
        for said, found in (("2", 2), ("1", 1), ("", 1)):
            monkeypatch.setenv("OMP_NUM_THREADS", said)
            use_own_threads()
            assert torch.get_num_threads() == found
    finally:
        torch.set_num_threads(before)
