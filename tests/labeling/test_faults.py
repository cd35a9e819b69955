"""What a pass survives: its driver, an actor, a node. The teacher sleeps and keeps a log of the units that it was given."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pytest
from harness import MARK, marked
from sweep_demo import wait_until_none

from raw2s.labeling.prompts import answer, prompt_units
from raw2s.labeling.units import Pool, PromptProgress, run_pass
from raw2s.labels.table import ANSWER
from raw2s.section import Actors

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SCHEMA = pa.schema([*ANSWER, ("shout", pa.string())])
IDS = list(range(100, 148))
UNITS = prompt_units(IDS, [f"prompt {i}" for i in IDS], 2)
ROOT = Path(__file__).resolve().parents[2]


def sleeping(log: Path, seconds: float, fatal: int | None = None):
    """Makes a teacher that takes `seconds` a unit, and kills its process at its first sight of the prompt `fatal`.

    Nested functions: Ray pickles them whole, for this module cannot be imported where the actors run.
    """

    def teacher(unit):
        with log.open("a") as stream:
            stream.write(json.dumps(unit["ids"]) + "\n")
        time.sleep(seconds)
        mark = log.with_suffix(".killed")
        if fatal in unit["ids"] and not mark.exists():
            mark.touch()
            os._exit(1)
        return [{"shout": prompt.upper()} for prompt in unit["prompts"]]

    return lambda: teacher


def given(log: Path) -> list[tuple[int, ...]]:
    """The units in the log, as often as they were given."""
    return sorted(tuple(json.loads(line)) for line in log.read_text().splitlines()) if log.exists() else []


def teacher_pool(**actors: object) -> Pool:
    return Pool(name="teacher", model="", actors=Actors(**actors))


def label(folder: Path, make, pool: Pool, board=None):
    return run_pass(make, UNITS, pool, schema=SCHEMA, folder=folder, progress=PromptProgress(board, "label", len(IDS)))


def assert_whole(answered) -> None:
    expected = [row for unit in UNITS for row in answer(sleeping(Path(os.devnull), 0)(), unit)]
    assert answered.answers.to_pylist() == expected
    assert sorted(answered.answers["id"].to_pylist()) == IDS
    assert answered.rejected == {}


@pytest.fixture
def local_ray():
    import ray

    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False)
    yield
    ray.shutdown()


def test_an_actor_that_dies_costs_its_unit_only(local_ray, tmp_path):
    import ray

    from raw2s.pipeline.progress import Board

    log, board = tmp_path / "log", Board.remote()
    answered = label(tmp_path / "units", sleeping(log, 0.05, fatal=IDS[20]), teacher_pool(replicas=(2, 2)), board)
    assert_whole(answered)
    assert ray.get(board.snapshot.remote()) == {"label": (len(IDS), len(IDS), "teacher")}
    seen = given(log)
    again = [unit for unit in set(seen) if seen.count(unit) > 1]
    assert [unit for unit in again if IDS[20] in unit] == again != []


def test_a_node_that_goes_takes_nothing_with_it(tmp_path):
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 * 2**20})
    try:
        nodes = [cluster.add_node(num_cpus=1, resources={"teaching": 1}, object_store_memory=100 * 2**20) for _ in range(2)]
        ray.init(address=cluster.address, log_to_driver=False)
        log, results = tmp_path / "log", []
        pool = teacher_pool(replicas=(2, 2), resources={"teaching": 1})
        thread = threading.Thread(target=lambda: results.append(label(tmp_path / "units", sleeping(log, 0.4), pool)))
        thread.start()
        while len(given(log)) < 6:
            assert thread.is_alive(), "the pass has failed, or was over at once"
            time.sleep(0.1)
        cluster.remove_node(nodes[1], allow_graceful=False)
        thread.join(timeout=150)
        assert_whole(results[0])
        assert len(given(log)) <= len(UNITS) + 4, "much was given twice"
    finally:
        ray.shutdown()
        cluster.shutdown()


DRIVER = """
import sys
from pathlib import Path
sys.path[:0] = {paths!r}
import ray
ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False)
import test_faults
answered = test_faults.label(Path({folder!r}) / "units", test_faults.sleeping(Path({folder!r}) / {log!r}, 0.3), test_faults.teacher_pool())
test_faults.assert_whole(answered)
"""


def driver(folder: Path, log: str, mark: str) -> subprocess.Popen:
    paths = [str(ROOT), str(Path(__file__).parent), str(ROOT / "benchmarks")]
    script = DRIVER.format(paths=paths, folder=str(folder), log=log)
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {MARK: mark}
    return subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def test_what_was_finished_when_the_driver_was_killed_is_not_done_again(tmp_path):
    mark = uuid4().hex
    first = driver(tmp_path, "first", mark)
    while len(given(tmp_path / "first")) < 8 and first.poll() is None:
        time.sleep(0.1)
    actors = [process for process in marked(mark) if "UnitActor" in " ".join(process.cmdline())]
    first.kill()
    output, _ = first.communicate(timeout=60)
    finished = len(list((tmp_path / "units").glob("*.parquet")))
    assert finished >= 7, output
    assert len(actors) == 1
    # The actor outlives its driver for a moment, and may finish one unit more.
    wait_until_none(lambda: [process for process in marked(mark) if process in actors], "actors of the first driver")
    second = driver(tmp_path, "second", uuid4().hex)
    output, _ = second.communicate(timeout=300)
    assert second.returncode == 0, output
    once, twice = given(tmp_path / "first"), given(tmp_path / "second")
    assert len(twice) == len(set(twice)) <= len(UNITS) - finished
    assert len(once) + len(twice) <= len(UNITS) + 1, "more than the unit in work was done again"
    assert set(once) | set(twice) == {tuple(unit["ids"]) for unit in UNITS}
