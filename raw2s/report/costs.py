"""What the stages of a run took, by their kind."""

from dataclasses import dataclass

from raw2s.results import Results, StageRecord


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of the stages of a kind; seconds add up over stages that ran side by side."""

    kind: str
    made: int
    made_seconds: float
    cached: int
    cached_seconds: float
    """What they took when they were made."""


def costs_of(results: Results) -> list[Cost]:
    """A row a kind, in the order in which they first come, and their sum."""
    kinds: dict[str, list[StageRecord]] = {}
    for stage in results.stages:
        kinds.setdefault(stage.name.partition("@")[0].partition("/")[0], []).append(stage)
    return [_cost(kind, stages) for kind, stages in [*kinds.items(), ("all", results.stages)]]


def _cost(kind: str, stages: list[StageRecord]) -> Cost:
    seconds = {cached: [stage.seconds for stage in stages if stage.cached == cached] for cached in (False, True)}
    return Cost(
        kind=kind,
        made=len(seconds[False]),
        made_seconds=sum(seconds[False]),
        cached=len(seconds[True]),
        cached_seconds=sum(seconds[True]),
    )


def duration(seconds: float) -> str:
    """`2 h 05 min`, `3 min 20 s` or `1.3 s`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60:,} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
