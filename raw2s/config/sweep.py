"""How a sweep searches: the section `sweep` of a config that `raw2s sweep` reads."""

from typing import Annotated, Literal

from pydantic import Field

from raw2s.section import Name, Positive, Section


class SweepConfig(Section):
    name: Name = "sweep"
    """The sweep's folder under `storage`, and its name in MLflow; started again under it, a sweep goes on."""
    method: Annotated[int, Field(ge=0)] = 0
    """Which entry of `methods` is judged, counted from 0: its student, after cDPO where the entry has `cdpo: true`."""
    trials: Positive = 8
    """How many settings are tried, those of earlier starts included."""
    search: Literal["random", "grid", "tpe"] = "tpe"
    """How settings are found: drawn, every combination of `choice` and `int` keys, or by Optuna's TPE from earlier trials."""
    scheduler: Literal["none", "asha", "median"] = "asha"
    """Which trials end early: none, by asynchronous halving, or those below the median of the others."""
    grace_epochs: Positive = 1
    """Epochs that every trial may train before it can be stopped."""
    seed: int = 1
    """Seed of the search."""
    concurrent: Literal["auto"] | Positive = "auto"
    """Most trials at the same time; `auto`, and at most, as many as the cluster's CPUs and GPUs hold."""
