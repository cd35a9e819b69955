"""A Ray of several nodes is asked whether each sees the storage."""

import pytest
import ray
from ray.cluster_utils import Cluster

from raw2s.errors import ConfigError
from raw2s.pipeline import shared_storage
from raw2s.pipeline.shared_storage import require_shared
from raw2s.storage import Uri
from raw2s.storage.files import exists, files_in


@pytest.fixture
def nodes(monkeypatch):
    """A Ray of two living nodes and a dead one, which is not asked."""
    known = [{"NodeID": name, "NodeManagerAddress": f"10.0.0.{name}", "Alive": name != "3"} for name in "123"]
    monkeypatch.setattr(ray, "nodes", lambda: known)
    return known


def test_a_folder_of_one_machine_is_refused_with_the_nodes_that_do_not_see_it(nodes, monkeypatch, tmp_path):
    monkeypatch.setattr(shared_storage, "_sees", lambda node, probe: exists(probe) and node == "1")
    with pytest.raises(
        ConfigError, match=r"is not seen from 10\.0\.0\.2 of 2 nodes; name a storage that every node sees, or a URI"
    ):
        require_shared(tmp_path)
    assert files_in(tmp_path) == {}


def test_a_bucket_without_credentials_on_a_node_is_refused(nodes, monkeypatch, bucket):
    monkeypatch.setattr(shared_storage, "_sees", lambda node, probe: False)
    with pytest.raises(ConfigError, match=r"from 10\.0\.0\.1, 10\.0\.0\.2 of 2 nodes; .* with credentials on each"):
        require_shared(bucket / "probed")
    assert files_in(bucket / "probed") == {}


def test_one_node_is_not_asked(nodes, monkeypatch, tmp_path):
    monkeypatch.setattr(shared_storage, "_sees", lambda node, probe: pytest.fail("asked"))
    del nodes[1:]
    require_shared(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_every_node_of_a_cluster_looks_for_itself(tmp_path, monkeypatch):
    """Both nodes are processes of this machine, so they see its disk; a bucket that is none they do not."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80 * 2**20})
    try:
        cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
        ray.init(cluster.address, log_to_driver=False)
        require_shared(tmp_path)
        assert files_in(tmp_path) == {}
        (one, other) = (node["NodeID"] for node in ray.nodes())
        assert one != other
        assert not shared_storage._sees(other, tmp_path / "nothing")
        assert not shared_storage._sees(
            other, Uri("s3://no-such-bucket", "x", "scheme=http&endpoint_override=127.0.0.1:9&region=eu")
        )
    finally:
        ray.shutdown()
        cluster.shutdown()
