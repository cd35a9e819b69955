"""Combining hard votes without looking at what was voted on: crowd-kit's aggregators, as baselines (optional: `raw2s[crowd]`)."""

from collections.abc import Iterable
from typing import Any, Literal

CrowdMethod = Literal["majority", "dawid_skene", "mace"]
Vote = tuple[int, str, int]
"""(item's id, worker, class index)."""


def combine_votes(votes: Iterable[Vote], method: CrowdMethod, classes: int, seed: int = 0) -> dict[int, list[float]]:
    """By id the probabilities of the classes, given all workers' votes; an item may have any number of them, at least one.

    `majority`: the shares of the votes. `dawid_skene`: a confusion matrix per worker (Dawid and Skene, 1979). `mace`: a
    worker either knows or guesses by habit (Hovy et al., 2013; variational, ten restarts drawn from `seed`).
    """
    import pandas as pd  # with crowd-kit, the optional part  # noqa: PLC0415
    from crowdkit.aggregation import MACE, DawidSkene, MajorityVote  # noqa: PLC0415

    aggregators: dict[CrowdMethod, Any] = {
        "majority": MajorityVote(), "dawid_skene": DawidSkene(), "mace": MACE(random_state=seed),
    }  # fmt: skip
    aggregator = aggregators[method]
    aggregator.fit(pd.DataFrame(list(votes), columns=["task", "worker", "label"]))
    shares = aggregator.probas_.reindex(columns=range(classes), fill_value=0.0).fillna(0.0)  # nobody may vote for a class
    return dict(zip(shares.index.tolist(), shares.to_numpy(dtype=float).tolist(), strict=True))
