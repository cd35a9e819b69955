"""Workers forked from a server, by real processes: what a child is, when the server ends, and what happens without one.

That Ray's own workers run so is what every slow test shows.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

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


def until(true, seconds: float = 20.0) -> bool:
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
    raylet.kill()
    raylet.wait()
    assert until(lambda: not folder.exists() and not Path(f"/proc/{server}").exists()), "the server outlived its raylet"


def test_without_a_server_a_client_is_python(tmp_path):
    (script := tmp_path / "script.py").write_text("import os, sys; print(os.getpid(), sys.argv[1:])")
    folder = tmp_path / "server"
    folder.mkdir()  # as if another client had started one
    (folder / "workers").touch()  # and it had died
    for run in ask(folder, script, "a", "b c"):
        assert run.stdout.split(maxsplit=1)[1] == "['a', 'b c']\n", run.stderr


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
