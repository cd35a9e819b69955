"""What came of a sweep in plain sentences, computed from its trials."""

from collections.abc import Sequence

from raw2s.config import SweepConfig
from raw2s.report.systems import listed
from raw2s.tuning.flattery import flattery
from raw2s.tuning.trials import Trial, ranked


def best_on_devel(order: Sequence[Trial]) -> str:
    """The figure of the first of the trials that count, best first, and how much of it is luck."""
    best = order[0]
    assert best.figure is not None, "a trial that counts has a figure"
    said = f"best on devel {best.figure:.3f}"
    if best.standard_error is None:
        return said
    said += f" ± {best.standard_error:.3f}"
    errors = [trial.standard_error for trial in order if trial.standard_error is not None]
    luck = flattery([trial.figure or 0.0 for trial in order], errors)
    return said if luck is None else f"{said}, of which about {luck:.3f} is luck of the choice"


def outcome(settings: SweepConfig, trials: Sequence[Trial]) -> str:
    """How many trials ended how, and the best. One that counts at least."""
    order = ranked(trials)
    ways = {
        "finished": "trained to the end",
        "stopped": "stopped early",
        "failed": "failed",
    }
    counts = {how: sum(trial.status == how for trial in trials) for how in ways}
    how = listed([f"{counts[status]} {words}" for status, words in ways.items() if counts[status]])
    searched = f"searched by {settings.search}" + ("" if settings.scheduler == "none" else f", stopped by {settings.scheduler}")
    return (
        f"{sum(counts.values())} trials, {searched}: {how}. Trial {order[0].number} is the {best_on_devel(order)}. "
        "It has not been tested."
    )


def notes(trials: Sequence[Trial]) -> list[str]:
    """How to read the numbers, a sentence or two a line."""
    lines = [
        "All scores are on devel, by which the best was chosen and checkpoints are kept: they flatter, and are no result. A trial's is "
        "that of the epoch that would be kept if it had ended there."
    ]
    if any(trial.standard_error is not None for trial in trials):
        lines.append(
            "± is one standard error over the examples of devel, 95 % intervals reach 1.96 of them; training again comes on top."
        )
    if len(ranked(trials)) > 2:
        lines.append(
            "Luck of the choice: by how much the best of so many is expected to lie above what its model is worth (regression to the "
            "mean, by empirical Bayes). It is an upper estimate, for trials judged on the same examples share their luck."
        )
    return lines


def failures(trials: Sequence[Trial]) -> list[str]:
    """A line a failed trial, with its reason."""
    return [f"trial {trial.number} failed: {trial.reason}" for trial in trials if trial.status == "failed"]
