"""A node that goes for good while a training runs on it: the training goes on with the workers that are left."""

import threading
from types import SimpleNamespace

import kills
import pytest
import ray
from ray.cluster_utils import Cluster
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from raw2s.config import RayConfig, TrainingConfig
from raw2s.errors import StageFailed
from raw2s.pipeline.jsonl import read_jsonl
from raw2s.pipeline.local_ray import start_ray
from raw2s.pipeline.resources import places
from raw2s.training import fit
from raw2s.training.progress import Progress

DEATH = WorkerGroupError("a worker died", {0: RuntimeError("gone")})
NO_PLACE = ControllerError(WorkerGroupStartupTimeoutError(4))
FULL = WorkerGroupError("OSError: [Errno 28] No space left on device", {0: OSError(28, "No space left on device")})


def fitted(outcomes, *, held=4, **training):
    """What came of a training of 4 workers whose attempts end so; the workers of each attempt, and what was said."""
    attempts, said, left = [], [], iter(outcomes)
    job = SimpleNamespace(name="ceiling", training=TrainingConfig(workers=4, micro_batch_size=2, batch_size=24, **training))

    def trainer(workers, patient):
        attempts.append((workers, patient))

        def run():
            if isinstance(outcome := next(left), Exception):
                raise outcome
            return outcome

        return SimpleNamespace(fit=run)

    try:
        result = fit._fitted(job, trainer, said.append, lambda each, labels: held)
    except Exception as error:
        result = error
    return result, attempts, said


def test_dead_workers_are_replaced_as_often_as_was_said():
    assert fitted([DEATH, DEATH, "done"], max_failures=2) == ("done", [(4, True), (4, False), (4, False)], [])
    result, attempts, _ = fitted([DEATH, DEATH, "done"], max_failures=1)
    assert result is DEATH and len(attempts) == 2


def test_a_cluster_that_is_only_busy_is_waited_for():
    assert fitted([DEATH, NO_PLACE, NO_PLACE, NO_PLACE, "done"], max_failures=1)[:2] == ("done", [(4, True), *[(4, False)] * 4])


@pytest.mark.parametrize(("held", "workers"), [(3, 3), (2, 2), (1, 1)])
def test_lost_nodes_leave_fewer_workers_and_one_line(held, workers):
    result, attempts, said = fitted([DEATH, NO_PLACE, "done"], held=held)
    assert (result, attempts) == ("done", [(4, True), (4, False), (workers, False)])
    (line,) = said
    assert line == (
        f"ceiling: the cluster has lost nodes and holds {held} of 4 training workers; it goes on at its last checkpoint with {workers}"
    )


def test_no_more_workers_than_share_a_batch():
    assert fit._workers_left(TrainingConfig(workers=4, micro_batch_size=4, batch_size=16), 3) == 2


def test_where_no_worker_is_left_a_place_the_stage_fails_in_a_sentence():
    result, _, said = fitted([DEATH, NO_PLACE], held=0)
    assert isinstance(result, StageFailed) and "bring one back, and run again" in str(result)
    assert said == []


def test_a_full_disk_is_not_tried_again():
    result, attempts, _ = fitted([FULL, "done"])
    assert result is FULL and len(attempts) == 1


def test_every_change_of_the_number_of_workers_is_remembered():
    progress = Progress()
    for step, workers in [(0, 4), (6, 4), (8, 1)]:
        progress.step = step
        progress.go_on_with(workers)
    assert progress.world_sizes == [[0, 4], [8, 1]]


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_training_on_two_nodes_ends_on_one(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "10")
    ray.shutdown()
    kills.prepare(tmp_path, kills.ROWS)
    said, ended = [], []

    def train():
        ended.append(
            fit.fit(kills.job(tmp_path), tmp_path / "out", tmp_path / "parts", board=None, warn=said.append, places=places)
        )

    nodes = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=nodes)
    try:
        node = cluster.add_node(**nodes)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        start_ray(RayConfig())
        training = threading.Thread(target=train)
        training.start()
        while kills.reached(tmp_path) < kills.EVERY and training.is_alive():
            training.join(0.05)
        cluster.remove_node(node, allow_graceful=False)
        training.join()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert said == [
        "killed: the cluster has lost nodes and holds 1 of 2 training workers; it goes on at its last checkpoint with 1"
    ]
    ((started, both), (resumed, one)) = ended[0]["world_sizes"]
    assert (started, both, one) == (0, 2, 1)
    assert resumed >= kills.EVERY and resumed % kills.EVERY == 0
    steps = [point["step"] for point in read_jsonl(tmp_path / "out" / "history.jsonl")]
    assert steps == sorted(set(steps)) and steps[-1] == kills.EPOCHS * kills.ROWS // kills.BATCH
