"""A node that goes for good while a training runs on it: the training goes on with the workers that are left."""

import threading

import kills
import pytest
import ray
from ray.cluster_utils import Cluster

from raw2s.config import RayConfig
from raw2s.pipeline.jsonl import read_jsonl
from raw2s.pipeline.local_ray import start_ray
from raw2s.pipeline.resources import places
from raw2s.training import fit


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
