"""What a stage asks of Ray, and whether there is a place for it: what Ray cannot place, it waits for without a word."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from raw2s.config import TrainingConfig
from raw2s.pipeline.stage import Stage
from raw2s.section import Actors


@dataclass(frozen=True, kw_only=True)
class Node:
    """A machine of the cluster: Ray's resources of it, and its labels; None where they are not known before it starts."""

    resources: Mapping[str, float]
    labels: Mapping[str, str] | None


@dataclass(frozen=True, kw_only=True)
class Request:
    """Processes of one kind that a stage starts: `count` at least, of which it cannot begin without `needed`."""

    what: str
    count: int
    needed: int
    each: Mapping[str, float]
    labels: Mapping[str, str]
    keys: str
    """Of the config, where it is asked for."""


def requests_of(stage: Stage) -> Iterator[Request]:
    """The workers of a stage that trains, or the actors of each model that labels in it."""
    values = (getattr(stage, field.name) for field in fields(stage))
    for value in (inner for v in values for inner in (v.values() if isinstance(v, Mapping) else (v,))):
        if isinstance(value, TrainingConfig):
            yield _workers_of(value)
        elif isinstance(actors := getattr(value, "actors", None), Actors):
            yield Request(
                what=f"actor of {value.name}",
                count=actors.replicas[0],
                needed=1,
                each={"CPU": actors.num_cpus, "GPU": actors.num_gpus, **(actors.resources or {})},
                labels=actors.label_selector or {},
                keys=f"num_cpus, num_gpus, resources or label_selector of {value.name}",
            )


def _workers_of(training: TrainingConfig) -> Request:
    return Request(
        what="training worker",
        count=training.workers,
        needed=training.workers,
        each={"CPU": training.cpus_per_worker, "GPU": training.gpus_per_worker},
        labels=training.label_selector or {},
        keys="workers, cpus_per_worker or gpus_per_worker of its training",
    )


def reserved(stage: Stage) -> dict[str, float]:
    """Ray's resources that a stage takes at once: its workers', or one set of actors of each model that labels in it."""
    total: dict[str, float] = {}
    for request in requests_of(stage):
        for name, amount in request.each.items():
            total[name] = total.get(name, 0.0) + amount * request.count
    return total


def lacking(stage: Stage, nodes: Sequence[Node]) -> str | None:
    """What the stage asks and the nodes cannot give, with what to do, in one line; None where it can run."""
    for request in requests_of(stage):
        if _held(request, nodes) < request.needed:
            return f"stage {stage.name}: {_refusal(request, nodes)}"
    return None


def _refusal(request: Request, nodes: Sequence[Node]) -> str:
    fitting = [node for node in nodes if _has(node, request.labels)]
    asks = f"{request.needed} {request.what}s ask for"
    if request.needed == 1:
        asks = f"{'an' if request.what[0] in 'aeiou' else 'a'} {request.what} asks for"
    if not fitting:
        return (
            f"{asks} nodes labeled {_listed(request.labels)}, and Ray's have {_labels_of(nodes)}; correct label_selector, or label "
            "a node (ray start --labels)"
        )
    asked = {name: amount for name, amount in request.each.items() if amount > 0}
    there = {name: sum(node.resources.get(name, 0.0) for node in fitting) for name in asked}
    over = f" over {len(fitting)} nodes" if len(fitting) > 1 else ""
    labeled = f"{over or ' on nodes'} labeled {_listed(request.labels)}" if request.labels else over
    return (
        f"{asks} {_amounts(asked)}{' each' if request.needed > 1 else ''}, and Ray has {_amounts(there)}{labeled}; lower "
        f"{request.keys}, or give Ray more (ray.num_cpus of a local one, RAY_ADDRESS for a larger cluster)"
    )


def cluster_nodes() -> list[Node]:
    """Those of the Ray that this process has joined, and one for all that its autoscaler may add."""
    import ray  # noqa: PLC0415
    from ray._private.state import state  # where Ray Train looks too; there is no public way  # noqa: PLC0415

    nodes = [Node(resources=node["Resources"], labels=node.get("Labels") or {}) for node in ray.nodes() if node["Alive"]]
    grown: dict[str, Any] | None = state.get_max_resources_from_cluster_config()
    return [*nodes, Node(resources=grown, labels=None)] if grown else nodes


def places(training: TrainingConfig) -> int:
    """How many of a training's workers the Ray that this process has joined holds, busy or not."""
    return _held(_workers_of(training), cluster_nodes())


def _held(request: Request, nodes: Sequence[Node]) -> int:
    """How many such processes the nodes hold."""
    return sum(_places(node, request.each) for node in nodes if _has(node, request.labels))


def _places(node: Node, each: Mapping[str, float]) -> int:
    """How many such processes the node holds."""
    return min(int(node.resources.get(name, 0.0) / amount + 1e-9) for name, amount in each.items() if amount > 0)


def _has(node: Node, labels: Mapping[str, str]) -> bool:
    from ray._raylet import node_labels_match_selector  # type: ignore[attr-defined]  # what Ray goes by  # noqa: PLC0415

    return node.labels is None or bool(node_labels_match_selector(dict(node.labels), dict(labels)))


def _amounts(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items())


def _labels_of(nodes: Sequence[Node]) -> str:
    """The values of every label that some node has, but for what Ray calls each of them."""
    values: dict[str, set[str]] = {}
    for node in nodes:
        for name, value in (node.labels or {}).items():
            if name != "ray.io/node-id":
                values.setdefault(name, set()).add(value)
    return _listed({name: " or ".join(sorted(own)) for name, own in values.items()}) or "no labels"


def _listed(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in labels.items())
