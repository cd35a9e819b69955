"""How a sweep searches: the section `sweep` of a config that `raw2s sweep` reads."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from raw2s.section import Name, Positive, Section


class SweepConfig(Section):
    name: Name = "sweep"
    """The sweep's folder under `storage`, and its name in MLflow; started again under it, a sweep goes on."""
    methods: Literal["all"] | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0]
    """Which entries of `methods` are searched, counted from 0, each by itself; judged is its student, after cDPO where it has that."""
    trials: Positive = 8
    """How many settings are tried for each entry, those of earlier starts included."""
    search: Literal["random", "grid", "tpe"] = "tpe"
    """How settings are found: drawn, every combination of `choice` and `int` keys, or by Optuna's TPE from earlier trials."""
    scheduler: Literal["none", "asha", "median"] = "asha"
    """Which trials end early: none, by asynchronous halving, or those below the median of the others."""
    grace_epochs: Positive = 1
    """Epochs that every trial may train before it can be stopped."""
    seed: int = 1
    """Seed of the search."""
    test_seeds: list[int] = []
    """With some, the best config is run with these seeds at the end, on test; `best.yaml` has them."""
    concurrent: Literal["auto"] | Positive = "auto"
    """Most trials at the same time; `auto`, and at most, as many as the cluster's CPUs and GPUs hold."""

    @field_validator("methods", "test_seeds")
    @classmethod
    def _once(cls, listed: str | list[int]) -> str | list[int]:
        if len(set(listed)) < len(listed) and listed != "all":
            raise ValueError("a number occurs twice; remove one")
        return listed
