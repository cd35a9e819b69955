"""How a sweep searches: the section `sweep` of a config that `raw2s sweep` reads."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from raw2s.section import Name, Positive, Section

Objective = Literal["devel_score", "validation_loss", "validation_accuracy"]
OBJECTIVES: dict[Objective, Literal["max", "min"]] = {
    "devel_score": "max",
    "validation_loss": "min",
    "validation_accuracy": "max",
}
"""Figures of the epoch that is kept, and which way each is better."""


class SweepConfig(Section):
    name: Name = "sweep"
    """The sweep's folder under `storage`, and its name in MLflow; started again under it, a sweep resumes."""
    methods: Literal["all"] | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0]
    """Which entries of `methods` are searched, counted from 0, each by itself; judged is its student, after cDPO where it has that."""
    trials: Positive = 8
    """How many settings are tried for each entry, those of earlier starts included."""
    search: Literal["random", "grid", "tpe"] = "tpe"
    """How settings are found: drawn, every combination of `choice` and `int` keys, or by Optuna's TPE from earlier trials."""
    objectives: list[Objective] = ["devel_score"]
    """What is searched for; of several the front is kept on which none is better in all, the best by devel_score in `best.yaml`."""
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

    @field_validator("methods", "test_seeds", "objectives")
    @classmethod
    def _once(cls, listed: Any) -> Any:
        if listed != "all" and len(set(listed)) < len(listed):
            raise ValueError("one of them occurs twice; remove it")
        return listed

    @model_validator(mode="after")
    def _objectives_go_with_the_rest(self) -> "SweepConfig":
        if "devel_score" not in self.objectives:
            raise ValueError("objectives lack devel_score, by which the best of them is chosen; add it")
        if len(self.objectives) > 1 and self.scheduler != "none":
            raise ValueError(
                f"scheduler: {self.scheduler} stops trials by one figure, and there are several objectives; set it to none"
            )
        return self
