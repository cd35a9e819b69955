"""The page of a sweep, in the look of a run's: its trials, as they stand in its file."""

from collections.abc import Sequence
from pathlib import Path

from raw2s.report.figures import Drawing
from raw2s.report.rendering import write_page
from raw2s.report.systems import bounds, fraction
from raw2s.tuning.axes import axes_of, weights_of
from raw2s.tuning.figures import course_figure, importance_figure, knob_figure, parallel_figure, ternary_figure
from raw2s.tuning.importance import importance_of
from raw2s.tuning.outcome import failures, notes, outcome
from raw2s.tuning.searched import Sweep
from raw2s.tuning.space import value_text
from raw2s.tuning.trials import FILE, Trial, ranked

MATTERS = "What matters"
"""The heading over all that is drawn of the knobs."""


def write_sweep_page(sweep: Sweep, trials: Sequence[Trial], folder: Path) -> Path:
    """Write `folder/report.html` and `folder/figures/*.svg` of the trials, one of which counts at least; returns the page's path."""
    config = sweep.config(sweep.start)
    shares = importance_of(ranked(trials), sweep.knobs)
    drawings = draw_sweep(sweep, trials, [teacher.name for teacher in config.teachers], shares)
    return write_page(
        "tuning/page.html.j2",
        folder,
        drawings,
        name=f"{sweep.settings.name} {sweep.part}".rstrip(),
        task=config.task.name,
        outcome=outcome(sweep.settings, trials),
        notes=notes(trials),
        unknown=shares if isinstance(shares, str) else "",
        keys=[knob.key for knob in sweep.knobs],
        order=ranked(trials),
        failures=failures(trials),
        file=FILE,
        value=value_text,
        fraction=fraction,
        bounds=bounds,
    )


def draw_sweep(sweep: Sweep, trials: Sequence[Trial], teachers: Sequence[str], shares: dict[str, float] | str) -> list[Drawing]:
    """Every figure that these trials have, in the page's order; `shares` are the knobs' importance."""
    shown = sorted(ranked(trials), key=lambda trial: trial.number)
    axes = axes_of(sweep.knobs, teachers)
    failed = sum(trial.status == "failed" for trial in trials)
    left_out = f" {failed} failed and {'has' if failed == 1 else 'have'} no score." if failed else ""
    drawings = [
        Drawing(
            name="course",
            section="Best so far",
            label="Score of every trial on devel in the order in which they started, and the best so far; the table below holds the same",
            caption="Circles: trials that were trained to the end; triangles: stopped ones, by the epoch that would be kept. The best "
            f"has a ring; the band is its 95 % interval over the examples of devel.{left_out}",
            figure=course_figure(shown),
        )
    ]
    if not isinstance(shares, str):
        drawings.append(
            Drawing(
                name="importance",
                section=MATTERS,
                label="Importance of every key: " + ", ".join(f"{key} {share:.2f}" for key, share in shares.items()),
                caption="fANOVA: the share of the score's variance over the searched ranges that a key explains alone, by a random "
                "forest over the trials. What keys explain together is in no bar. Weights of one key have the sum of their "
                "coordinates' shares. With few trials the bars change much from sweep to sweep.",
                figure=importance_figure(shares),
            )
        )
    drawings.append(
        Drawing(
            name="knobs",
            section=MATTERS,
            label="Score on devel against every key, a panel each; the table below holds the same",
            caption="The score against each key, and against each weight. Bars: 95 % intervals.",
            figure=knob_figure(shown, axes),
        )
    )
    for number, knob in enumerate(knob for knob in sweep.knobs if knob.name == "simplex" and len(teachers) == 3):
        drawings.append(
            Drawing(
                name=f"weights-{number}",
                section=MATTERS,
                label=f"{knob.key} of every trial in a triangle, colored by the score; the table below holds the same",
                caption=f"{knob.key}: a corner is all of the weight on that teacher, a line a step of a fifth. Larger and redder "
                "points scored higher, triangles were stopped, the best has a ring.",
                figure=ternary_figure(shown, weights_of(knob, teachers), teachers),
            )
        )
    drawings.append(
        Drawing(
            name="parallel",
            section=MATTERS,
            label="Every trial as a line through its values of all keys to its score; the table below holds the same",
            caption="A line is a trial, from its values to its score on the last axis. Redder lines scored higher, dashed ones were "
            "stopped, the thick one is the best. Ranges written as loguniform have a logarithmic axis.",
            figure=parallel_figure(shown, axes),
        )
    )
    return drawings
