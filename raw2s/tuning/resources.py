"""How many trials the cluster holds at once."""

from collections.abc import Iterable, Mapping

from raw2s.pipeline.resources import reserved
from raw2s.pipeline.stage import Stage

DRIVER_CPU = 0.1
"""Ray CPUs of the process that runs a trial's stages."""


def trials_at_once(stages: Iterable[Stage], cluster: Mapping[str, float]) -> int:
    """How many trials the cluster holds, each of which runs these stages one after another; at least one.

    Nothing is left for one trial to wait for while another holds it: two that each got half of what they need would wait for ever.
    """
    need: dict[str, float] = {"CPU": DRIVER_CPU}
    for stage in stages:
        for name, amount in reserved(stage).items():
            need[name] = max(need.get(name, 0.0), amount + (DRIVER_CPU if name == "CPU" else 0.0))
    return max(1, min(int(cluster.get(name, 0.0) / amount + 1e-9) for name, amount in need.items() if amount > 0))
