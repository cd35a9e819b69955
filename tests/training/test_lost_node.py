"""What becomes of a training whose nodes go for good; tests/cluster/test_lost_node.py takes a real one away."""

from types import SimpleNamespace

import pytest
from ray.exceptions import ActorDiedError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from raw2s.config import TrainingConfig
from raw2s.errors import StageFailed
from raw2s.training import fit
from raw2s.training.progress import Progress

DEATH = WorkerGroupError("a worker died", {0: RuntimeError("gone")})
CONTROLLER = ActorDiedError()
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
        result = fit._fitted(job, trainer, said.append, lambda training: held)
    except Exception as error:
        result = error
    return result, attempts, said


def test_dead_workers_are_replaced_as_often_as_was_said():
    assert fitted([DEATH, DEATH, "done"], max_failures=2) == ("done", [(4, True), (4, False), (4, False)], [])
    result, attempts, _ = fitted([DEATH, DEATH, "done"], max_failures=1)
    assert result is DEATH and len(attempts) == 2


def test_a_dead_controller_is_a_failure_like_any():
    assert fitted([CONTROLLER, DEATH, "done"], max_failures=2) == ("done", [(4, True), (4, False), (4, False)], [])
    assert fitted([CONTROLLER, "done"], max_failures=0)[0] is CONTROLLER


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
