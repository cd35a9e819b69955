"""Below which probability a student abstains, so that what is left has a wished accuracy on devel."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from raw2s.record import Interval


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """The answers of at least `probability` are kept."""

    probability: float
    kept: int
    """On devel, `right` of them right, of `examples`."""
    right: int
    examples: int

    @property
    def ci95(self) -> Interval:
        """Wilson's interval of the accuracy of the kept; the choice of the threshold on the same examples is not in it."""
        low, high = binomtest(self.right, self.kept).proportion_ci(method="wilson")
        return float(low), float(high)


def threshold_for(accuracy: float, probability: Sequence[float], right: Sequence[bool]) -> Threshold:
    """The lowest threshold that keeps answers of which at least the share `accuracy` is right: the one that keeps most.

    `probability` and `right` are of the same answers. Raises ValueError for a wish outside (0, 1], and where no threshold grants it.
    """
    if not 0 < accuracy <= 1:
        raise ValueError(f"an accuracy of {accuracy:g} cannot be; wish for one above 0 and up to 1")
    order = np.argsort(-np.asarray(probability), kind="stable")
    sorted_P, right_P = np.asarray(probability)[order], np.cumsum(np.asarray(right)[order])
    last = np.flatnonzero(np.append(sorted_P[1:] != sorted_P[:-1], True))  # answers of one probability are kept together
    share = right_P[last] / (last + 1)
    if not (granted := last[share >= accuracy]).size:
        best = last[share.argmax()]
        raise ValueError(
            f"no threshold reaches an accuracy of {accuracy:g} on devel, where of the {best + 1} surest of {len(order)} answers "
            f"{right_P[best]} are right ({share.max():.3f}); wish for less, or train a better student"
        )
    at = int(granted[-1])
    return Threshold(probability=float(sorted_P[at]), kept=at + 1, right=int(right_P[at]), examples=len(order))
