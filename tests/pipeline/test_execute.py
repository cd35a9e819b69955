"""How a failure is told, the worker's own error out of what Ray wraps around it; and that a sweep's Ray knows itself."""

import pickle
import subprocess
import sys
from types import SimpleNamespace

import pytest
import ray
from ray.train.v2.api.exceptions import WorkerGroupError
from rich.console import Console

from raw2s.causes import cause
from raw2s.config import RayConfig
from raw2s.pipeline.local_ray import start_ray
from raw2s.pipeline.progress import Board, StageDisplay, open_board

RAY_DATA = """ray::Map(BeamActor)() (pid=1, ip=127.0.0.1)
  File "actors.py", line 1, in __call__
ValueError: 300 tokens do not fit; shorten the text

The above exception was the direct cause of the following exception:

ray::Map(BeamActor)() (pid=1, ip=127.0.0.1)
ray.exceptions.UserCodeException: UDF failed to process a data block.
To ignore errors set max_errored_blocks."""


def test_the_workers_error_is_found_in_rays_text():
    assert cause(RuntimeError(RAY_DATA)) == "ValueError: 300 tokens do not fit; shorten the text"


def test_a_plain_error_is_itself():
    assert cause(ValueError("no such part\nsecond line")) == "ValueError: no such part"


def test_of_a_worker_that_died_the_reason_is_told():
    death = "[Rank 0 Error Snippet]:\nA worker health check failed.\nThe actor is dead because its worker process has died."
    assert cause(WorkerGroupError(death, {})) == "WorkerGroupError: The actor is dead because its worker process has died."


def test_the_board_is_asked_for_on_the_drivers_own_node(monkeypatch):
    asked = {}
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "ab" * 28))
    monkeypatch.setattr(Board, "options", lambda **options: asked.update(options) or SimpleNamespace(remote=lambda: "board"))
    assert open_board() == "board"
    assert (asked["scheduling_strategy"].node_id, asked["scheduling_strategy"].soft) == ("ab" * 28, False)


def test_of_a_board_that_answers_late_no_point_is_lost(monkeypatch):
    board = Board.__ray_metadata__.modified_class()
    late = [False, True, False, False]

    def get(answer, timeout):
        if late.pop(0):
            raise ray.exceptions.GetTimeoutError
        return pickle.loads(pickle.dumps(answer))

    monkeypatch.setattr(ray, "get", get)
    display, seen = StageDisplay(Console(quiet=True)), []
    display.board = SimpleNamespace(progress=SimpleNamespace(remote=board.progress))
    for step in range(4):
        board.record("student/0", {"step": step})
        seen.append([point["step"] for _, point in display.progress()[1]])
    assert seen == [[0], [], [1, 2], [3]]


OTHER_RAY = """
import ray
ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20, log_to_driver=False)
print("up", flush=True)
input()
"""


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_sweeps_actors_ask_their_own_ray_though_another_runs_beside_it(monkeypatch):
    """What Ray Train's placement-group cleaner does after an early stop; when it cannot, the sweep hangs."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    ray.shutdown()

    @ray.remote(num_cpus=0)
    class Asker:
        def state_of_itself(self):
            from ray.util.state import get_actor

            return get_actor(ray.get_runtime_context().get_actor_id()).state

    other = subprocess.Popen([sys.executable, "-c", OTHER_RAY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        while "up" not in (line := other.stdout.readline()):
            assert line, "the other Ray did not start"
        start_ray(RayConfig(num_cpus=1, object_store_mb=80), dashboard=True)
        assert ray.get(Asker.remote().state_of_itself.remote(), timeout=60) == "ALIVE"
    finally:
        ray.shutdown()
        other.communicate("\n", timeout=60)
