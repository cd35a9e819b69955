"""Whether every node of a Ray sees the storage and has the driver's packages: a folder, credentials or an environment may be one machine's."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from raw2s.causes import cause
from raw2s.errors import ConfigError
from raw2s.pipeline.artifacts import versions
from raw2s.storage import Place, Uri
from raw2s.storage.files import exists, remove, write

ANSWER_SECONDS = 300.0
"""For a node to start the process that looks."""
INSTALL = "install the same versions on every node: pip install -c constraints.txt ."


def require_alike(root: Place) -> None:
    """Raise ConfigError, naming the nodes, where some node of the Ray that this process has joined does not see `root`, or has other packages.

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
            answers = list(zip(nodes.values(), threads.map(lambda node: _ask(node, probe), nodes), strict=True))
    finally:
        remove(probe)
    looked: list[tuple[str, bool, dict[str, str]]] = []
    for address, answer in answers:
        if isinstance(answer, str):
            raise ConfigError(f"RAY_ADDRESS: node {address} cannot run raw2s ({answer}); {INSTALL}")
        looked.append((address, *answer))
    blind = sorted(address for address, sees, _ in looked if not sees)
    if blind:
        what = "that every node reaches, with credentials on each" if isinstance(root, Uri) else "that every node sees, or a URI"
        raise ConfigError(f"storage: {root} is not seen from {', '.join(blind)} of {len(nodes)} nodes; name a storage {what}")
    own = versions()
    for address, _, found in looked:
        if unequal := _unequal(found, own):
            raise ConfigError(f"RAY_ADDRESS: node {address} has {unequal}; {INSTALL}")


def _unequal(found: dict[str, str], own: dict[str, str]) -> str:
    """Every package with both versions; torch for a GPU and torch for a CPU, which differ after a plus sign, are the same."""
    names = [name for name, here in own.items() if found[name].partition("+")[0] != here.partition("+")[0]]
    return ", ".join(f"{name} {found[name]} where this machine has {own[name]}" for name in names)


def _ask(node: str, probe: Place) -> tuple[bool, dict[str, str]] | str:
    """On the node itself; why it has no answer, where it has none."""
    import ray  # noqa: PLC0415
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

    there = ray.remote(_look).options(
        num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
    )
    try:
        answer: tuple[bool, dict[str, str]] = ray.get(there.remote(probe), timeout=ANSWER_SECONDS)
    except ray.exceptions.RayError as error:
        return cause(error)
    return answer


def _look(probe: Any) -> tuple[bool, dict[str, str]]:
    """Whether this node sees the probe, and its packages' versions."""
    try:
        sees = exists(probe)
    except OSError:  # no credentials here
        sees = False
    return sees, versions()
