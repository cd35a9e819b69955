"""A Ray of several nodes is asked whether each sees the storage and has the driver's packages. A real one: tests/test_bad_clusters.py."""

import pytest
import ray

from raw2s.errors import ConfigError
from raw2s.pipeline import every_node
from raw2s.pipeline.artifacts import versions
from raw2s.pipeline.every_node import require_alike
from raw2s.storage import Uri
from raw2s.storage.files import exists, files_in

INSTALL = r"; install the same versions on every node: pip install -c constraints\.txt \.$"


@pytest.fixture
def nodes(monkeypatch):
    """A Ray of two living nodes and a dead one, which is not asked."""
    known = [{"NodeID": name, "NodeManagerAddress": f"10.0.0.{name}", "Alive": name != "3"} for name in "123"]
    monkeypatch.setattr(ray, "nodes", lambda: known)
    return known


def answering(monkeypatch, *, second):
    """Node 1 is as the driver; node 2 answers `second`, or what that gives of the probe."""

    def ask(node, probe):
        alike = exists(probe), versions()
        return alike if node == "1" else second

    monkeypatch.setattr(every_node, "_ask", ask)


def test_nodes_that_are_alike_are_taken(nodes, monkeypatch, tmp_path):
    answering(monkeypatch, second=(True, versions()))
    require_alike(tmp_path)
    assert files_in(tmp_path) == {}


def test_a_folder_of_one_machine_is_refused_with_the_nodes_that_do_not_see_it(nodes, monkeypatch, tmp_path):
    answering(monkeypatch, second=(False, versions()))
    with pytest.raises(
        ConfigError, match=r"is not seen from 10\.0\.0\.2 of 2 nodes; name a storage that every node sees, or a URI"
    ):
        require_alike(tmp_path)
    assert files_in(tmp_path) == {}


def test_a_bucket_without_credentials_on_a_node_is_refused(nodes, monkeypatch, bucket):
    monkeypatch.setattr(every_node, "_ask", lambda node, probe: (False, versions()))
    with pytest.raises(ConfigError, match=r"from 10\.0\.0\.1, 10\.0\.0\.2 of 2 nodes; .* with credentials on each"):
        require_alike(bucket / "probed")
    assert files_in(bucket / "probed") == {}


def test_a_store_that_refuses_is_not_seen():
    probe = Uri("s3://no-such-bucket", "x", "scheme=http&endpoint_override=127.0.0.1:9&region=eu")
    assert every_node._look(probe) == (False, versions())


def test_other_packages_are_named_with_both_versions(nodes, monkeypatch, tmp_path):
    own = versions()
    answering(monkeypatch, second=(True, own | {"numpy": "1.0", "ray": "2.0"}))
    with pytest.raises(ConfigError) as told:
        require_alike(tmp_path)
    assert str(told.value).startswith(
        f"RAY_ADDRESS: node 10.0.0.2 has ray 2.0 where this machine has {own['ray']}, "
        f"numpy 1.0 where this machine has {own['numpy']}; install the same versions on every node"
    )


def test_torch_for_another_device_is_the_same(nodes, monkeypatch, tmp_path):
    own = versions()
    answering(monkeypatch, second=(True, own | {"torch": own["torch"].partition("+")[0] + "+cu130"}))
    require_alike(tmp_path)


def test_a_node_that_cannot_answer_is_named_with_the_reason(nodes, monkeypatch, tmp_path):
    answering(monkeypatch, second="ModuleNotFoundError: No module named 'raw2s'")
    with pytest.raises(ConfigError, match=r"node 10\.0\.0\.2 cannot run raw2s \(ModuleNotFoundError: .*'raw2s'\)" + INSTALL):
        require_alike(tmp_path)
    assert files_in(tmp_path) == {}


def test_one_node_is_not_asked(nodes, monkeypatch, tmp_path):
    monkeypatch.setattr(every_node, "_ask", lambda node, probe: pytest.fail("asked"))
    del nodes[1:]
    require_alike(tmp_path)
