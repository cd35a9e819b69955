"""Weights, gradients and optimizer state in bytes, as DeepSpeed's ZeRO lays them out for one worker (Rajbhandari et al. 2020).

The paper's mixed precision keeps 2 + 2 + 12 bytes a parameter and divides the last 12 (stage 1), the gradients too (2) and the
weights too (3) by the number of workers (its Figure 1). DeepSpeed 0.19.8 adds to that what the paper leaves out and `Layout`
states: stages 1 and 2 have fp32 master weights in fp32 training too (`single_partition_of_fp32_groups`), a bucket for the gradients
(`ipg_buckets`), and at the step a flat copy of the partition's gradients and the same in the master's type (`step`).
"""

from dataclasses import dataclass
from typing import Literal

from raw2s.sizing.model import ModelSize

BUCKET = 500_000_000
"""Gradients in a bucket: DeepSpeed's `reduce_bucket_size`."""
LIVE = 1_000_000_000
"""Weights that stage 3 holds gathered at most, and of which it makes a step at once: `max_live_parameters`, `sub_group_size`."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How weights, gradients and optimizer state are kept."""

    stage: Literal[0, 1, 2, 3] | None
    """DeepSpeed's ZeRO stage; None: torch's optimizer on the model's own weights, with moments in their type."""
    workers: int = 1
    weight_bytes: int = 2
    """Of a number in forward and backward: 2 or 4."""
    master_bytes: int = 4
    """Of a master weight, and of the gradient that the step takes."""
    moment_bytes: int = 4
    """Of each of Adam's two moments."""
    offload: Literal["none", "optimizer", "all"] = "none"
    on_gpu: bool = True
    """A bucket is there whether it is full or not, and a gradient's memory is free once it is copied. On a CPU only what was
    written to is there, and glibc keeps what is freed in blocks of less than 32 MiB."""


@dataclass(frozen=True, kw_only=True)
class States:
    """Bytes of one worker on its device, and beside it in host memory."""

    weights: float
    gradients: float
    """At the end of a backward pass."""
    optimizer: float
    buckets: float = 0.0
    """What the gradients are gathered in, until the end of the backward pass."""
    at_step: float = 0.0
    """What the optimizer's step takes more, when the buckets are gone."""
    host: float = 0.0
    """With offload, on the host; 0 where the device is the host."""


def states(size: ModelSize, layout: Layout) -> States:
    """What one worker keeps of a model in training."""
    trained, part = size.trained, size.trained / layout.workers
    weight, master = layout.weight_bytes, layout.master_bytes
    moments = 2 * layout.moment_bytes
    if layout.stage is None:
        return States(weights=weight * size.parameters, gradients=weight * trained, optimizer=2 * weight * trained)
    if layout.stage == 0:
        half = weight < master
        return States(
            weights=weight * size.parameters,
            gradients=weight * trained,
            optimizer=(moments + (master if half else 0)) * trained,
            buckets=weight * min(trained, BUCKET) if layout.workers > 1 else 0,
            at_step=master * trained if half else 0,
        )
    cast = master if weight != master else 0
    if layout.stage == 3:
        kept = 0 if weight == master and layout.offload == "none" else master
        found = States(
            weights=weight * (size.parameters / layout.workers + (min(size.parameters, LIVE) if layout.workers > 1 else 0)),
            gradients=weight * part,
            optimizer=(kept + moments) * part,
            buckets=weight * BUCKET if layout.on_gpu else weight * min(trained, BUCKET),
            at_step=(weight + cast) * min(part, LIVE),
        )
    else:
        found = States(
            weights=weight * size.parameters,
            gradients=weight * (trained if layout.stage == 1 else part),
            optimizer=(master + moments) * part,
            buckets=weight * (BUCKET if layout.on_gpu else min(trained, BUCKET) + part),
            at_step=(weight + cast + (0 if layout.on_gpu else weight)) * part,
        )
    return found if layout.offload == "none" else _offloaded(found, layout, size, part)


def _offloaded(found: States, layout: Layout, size: ModelSize, part: float) -> States:
    """Master weights, their gradients, moments and a 16-bit buffer on the host; with `all` the weights too, gathered when used."""
    weights, gradients = found.weights, found.gradients if layout.stage == 1 else 0.0
    host = (2 * layout.master_bytes + 2 * layout.moment_bytes + layout.weight_bytes) * part
    if layout.offload == "all":
        host += layout.weight_bytes * size.parameters / layout.workers
        weights = layout.weight_bytes * min(size.parameters, LIVE)
    if not layout.on_gpu:
        return States(weights=weights, gradients=gradients, optimizer=host, buckets=found.buckets)
    return States(weights=weights, gradients=gradients, optimizer=0.0, buckets=found.buckets, host=host)
