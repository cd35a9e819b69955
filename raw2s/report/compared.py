"""Several finished runs side by side: a table for the terminal, and a page in the look of a run's."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from raw2s.report.figures import Drawing
from raw2s.report.rendering import write_page
from raw2s.report.score_figures import students_figure
from raw2s.report.systems import Shown, bounds, fraction, list_systems, listed, p_text, score_text, signed
from raw2s.report.table import plain_table
from raw2s.results import Difference, Results
from raw2s.storage import Place

PAIRS_SHOWN = 20
"""In the terminal, the ones that are told apart best; the page has all."""


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    name: str
    """Which tells it from the others: its own, or its folder where two have the same."""
    folder: Place
    results: Results

    @property
    def systems(self) -> dict[str, Shown]:
        """By the name that tables of several runs match them by."""
        return {system.label: system for system in list_systems(self.results)}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two students of different runs, on the same test examples."""

    one: tuple[str, str]
    """Its run and its name there; so too the other."""
    other: tuple[str, str]
    difference: Difference


@dataclass(frozen=True, kw_only=True)
class Comparison:
    runs: list[ComparedRun]
    keys: dict[str, list[str | None]]
    """The config's keys in which the runs differ, with their values; None where a run has no such key."""
    pairs: list[Pair]
    notes: list[str]
    """Which runs are not compared by pairs, and why, a sentence each; how intervals and p are to be read."""

    @property
    def rows(self) -> dict[str, list[Shown | None]]:
        """Every system's entry of every run, by its name; baselines first, then teachers, ceilings, students."""
        names = {label: shown.role for run in self.runs for label, shown in run.systems.items()}
        order = ("baseline", "teacher", "ceiling", "student")
        return {
            label: [run.systems.get(label) for run in self.runs] for label in sorted(names, key=lambda n: order.index(names[n]))
        }

    @property
    def about(self) -> str:
        """`2 runs of slurp_slots, scores in SLU-F1`."""
        tasks = dict.fromkeys(run.results.task for run in self.runs)
        metrics = dict.fromkeys(run.results.metric_title for run in self.runs)
        return f"{len(self.runs)} runs of {listed(list(tasks))}, scores in {listed(list(metrics))}"


def compared_table(comparison: Comparison) -> Group:
    """A rich renderable: what differs in the configs, the scores, the pairs, and how to read them."""
    names = [run.name for run in comparison.runs]
    keys, scores, pairs = plain_table(), plain_table(), plain_table()
    for table, first in ((keys, "key"), (scores, "model")):
        for heading in (first, *names):
            table.add_column(Text(heading), overflow="fold")
    for key, values in comparison.keys.items():
        keys.add_row(*map(Text, [key, *("-" if value is None else value for value in values)]))
    for label, row in comparison.rows.items():
        scores.add_row(*map(Text, [label, *("" if shown is None else _score(shown) for shown in row)]))
    for heading in ("student", "other", "difference\n[interval]", "p, corrected"):
        pairs.add_column(Text(heading), overflow="fold")
    order = sorted(comparison.pairs, key=lambda pair: pair.difference.p)
    for pair in order[:PAIRS_SHOWN]:
        own = pair.difference
        said = [": ".join(pair.one), ": ".join(pair.other), f"{signed(own.difference)}\n{bounds(own.ci95)}", p_text(own.p_holm)]
        pairs.add_row(*map(Text, said))
    left_out = [f"{len(order) - PAIRS_SHOWN} more pairs are on the page."] if len(order) > PAIRS_SHOWN else []
    parts: list[RenderableType] = [Text(), Text(comparison.about, style="bold"), Text()]
    parts += [keys if comparison.keys else Text("Their configs are the same."), Text(), scores, Text()]
    if comparison.pairs:
        parts += [pairs, Text()]
    return Group(*parts, *map(Text, [*left_out, *comparison.notes]), Text())


def write_compared(comparison: Comparison, folder: Path) -> Path:
    """Write `folder/report.html` and `folder/figures/*.svg`; returns the page's path."""
    return write_page(
        "report/compare.html.j2",
        folder,
        _drawings(comparison),
        comparison=comparison,
        bounds=bounds,
        fraction=fraction,
        score_text=score_text,
        signed=signed,
        p_text=p_text,
    )


def _score(shown: Shown) -> str:
    return score_text(shown) + ("" if shown.role == "baseline" else f"\n{bounds(shown.ci95)}")


def _drawings(comparison: Comparison) -> Sequence[Drawing]:
    """The students of all runs on one axis, where one metric measures them."""
    named = [
        (f"{run.name}: {shown.label}", shown)
        for label, row in comparison.rows.items()
        for run, shown in zip(comparison.runs, row, strict=True)
        if shown is not None and shown.role == "student"
    ]
    titles = {run.results.metric_title for run in comparison.runs}
    if len(titles) > 1 or not named:
        return []
    return [
        Drawing(
            name="students",
            section="Scores",
            label="Score of every student of every run with its interval; the table holds the same",
            caption="Bars: 95 % intervals, as each run's own report has them; ticks: single seeds. Whether two differ is not read off "
            "these bars, for the runs share test examples: see the pairs.",
            figure=students_figure(named, titles.pop()),
        )
    ]
