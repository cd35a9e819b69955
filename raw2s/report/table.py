"""The table at the end of a run; it fits 80 columns, which is also what a log without a terminal gets."""

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from raw2s.report.outcome import outcome
from raw2s.report.systems import Shown, bounds, list_systems, notes, pgr_text, score_text
from raw2s.results import Results


def closing_table(results: Results) -> Group:
    """A rich renderable: teachers, ceiling and students with score, PGR and intervals, and below it what they say and how to read them."""
    systems = list_systems(results)
    noise = bool(results.noisy)
    answers = any(system.empty is not None for system in systems)
    table = plain_table()
    table.add_column("model", overflow="fold")
    shares = ["empty", "unpars-\nable"] if answers else []
    for heading in ("aux", "conf.", f"{results.metric_title}\n[interval]", "PGR\n[interval]", *shares):
        table.add_column(Text(heading), justify="right", no_wrap=True)
    for system, following in zip(systems, [*systems[1:], None], strict=True):
        last_of_role = following is not None and following.role != system.role
        table.add_row(*map(Text, _cells(system, noise, answers)), end_section=last_of_role)
    title = Text(f"{results.run}: {results.task}, {results.test_examples:,} test examples", style="bold")
    return Group(Text(), title, Text(), table, Text(), Text(outcome(results)), Text(), *map(Text, notes(results)), Text())


def plain_table() -> Table:
    """An empty table as narrow as can be: rules under the headings alone."""
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))


def _cells(system: Shown, noise: bool, answers: bool) -> list[str]:
    student = system.student
    interval = "" if system.role == "baseline" else f"\n{bounds(system.ci95)}"
    cells = [system.name, "", "", f"{score_text(system)}{interval}", ""]
    if student is not None:
        pgr = [pgr_text(student.pgr, noise), *([bounds(student.pgr_ci95)] if student.pgr is not None else [])]
        cells[1:3] = ["yes" if student.aux else "no", "yes" if student.confidence else "no"]
        cells[4] = "\n".join(pgr)
    shares = [system.empty, system.unparsable] if answers else []
    return cells + ["" if share is None else f"{share:.1%}" for share in shares]
