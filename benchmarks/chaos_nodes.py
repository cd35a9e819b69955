"""A Ray of three nodes for benchmarks/chaos.py: raylets of this machine, of which one, or the head with its driver, may be lost."""

import os
import random
from pathlib import Path
from unittest.mock import patch

import harness
from ray.cluster_utils import Cluster

SETTINGS = {
    "RAY_health_check_period_ms": "1000",  # a node that is gone is dead after a quarter of a minute
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_worker_niceness": "0",
}
NODE = {"object_store_memory": 80 * 2**20}


class ThreeNodes:
    """The head has no CPU: all work is on the two workers."""

    def __init__(self, folder: Path) -> None:
        """All its processes are marked as started for `folder`."""
        self._environment = {harness.MARK: str(folder), **SETTINGS}
        with patch.dict(os.environ, self._environment):
            self._ray = Cluster(initialize_head=True, head_node_args=NODE | {"num_cpus": 0, "include_dashboard": True})
            self._workers = [self._ray.add_node(num_cpus=4, **NODE) for _ in range(2)]
        self.address: str = self._ray.address

    def lose_worker(self, draw: random.Random) -> None:
        """A worker node is gone at once, with all that ran on it; another takes its place."""
        lost = self._workers.pop(draw.randrange(len(self._workers)))
        self._ray.remove_node(lost, allow_graceful=False)
        with patch.dict(os.environ, self._environment):
            self._workers.append(self._ray.add_node(wait=False, num_cpus=4, **NODE))

    def lose_head(self) -> None:
        self._ray.head_node.kill_all_processes(check_alive=False, allow_graceful=False)

    def stop(self) -> None:
        """What is left of it."""
        self._ray.shutdown()
