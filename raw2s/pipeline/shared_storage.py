"""Whether every node of a Ray sees the storage: a folder may be one machine's own, and credentials may lie on one machine alone."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from raw2s.errors import ConfigError
from raw2s.storage import Place, Uri
from raw2s.storage.files import exists, remove, write

ANSWER_SECONDS = 300.0
"""For a node to start the process that looks."""


def require_shared(root: Place) -> None:
    """Raise ConfigError, naming the nodes, where some node of the Ray that this process has joined does not see `root`.

    A Ray of one node is not asked. Nodes that an autoscaler adds later are not known here.
    """
    import ray  # noqa: PLC0415

    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if len(nodes) < 2:
        return
    probe = root / f".probe-{uuid.uuid4().hex}"
    write(probe, b"raw2s")
    try:
        with ThreadPoolExecutor(len(nodes)) as threads:  # each starts a process on its node
            seen = list(threads.map(lambda node: _sees(node, probe), nodes))
        blind = sorted(address for address, sees in zip(nodes.values(), seen, strict=True) if not sees)
    finally:
        remove(probe)
    if not blind:
        return
    what = "that every node reaches, with credentials on each" if isinstance(root, Uri) else "that every node sees, or a URI"
    raise ConfigError(f"storage: {root} is not seen from {', '.join(blind)} of {len(nodes)} nodes; name a storage {what}")


def _sees(node: str, probe: Place) -> bool:
    """Ask on the node itself."""
    import ray  # noqa: PLC0415
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

    there = ray.remote(_is_there).options(
        num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
    )
    try:
        seen: bool = ray.get(there.remote(probe), timeout=ANSWER_SECONDS)
    except ray.exceptions.RayError:
        return False
    return seen


def _is_there(probe: Any) -> bool:
    try:
        return exists(probe)
    except OSError:  # no credentials there
        return False
