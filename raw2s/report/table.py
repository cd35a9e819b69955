"""The table at the end of a run; it fits 80 columns, which is also what a log without a terminal gets."""

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from raw2s.report.systems import Results, System, bounds, fraction, list_systems, metric_name, noisy_teachers, notes, pgr_text


def closing_table(results: Results) -> Group:
    """A rich renderable: teachers, ceiling and students with score, PGR and intervals, and below it how to read them."""
    systems = list_systems(results)
    noise = bool(noisy_teachers(results))
    answers = any(system.empty is not None for system in systems)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("model", overflow="fold")
    shares = ["empty", "unpars-\nable"] if answers else []
    for heading in ("aux", "conf.", f"{metric_name(results)}\n[interval]", "PGR\n[interval]", *shares):
        table.add_column(Text(heading), justify="right", no_wrap=True)
    for system, following in zip(systems, [*systems[1:], None], strict=True):
        last_of_role = following is not None and following.role != system.role
        table.add_row(*map(Text, _cells(system, noise, answers)), end_section=last_of_role)
    title = Text(f"{results['run']}: {results['task']}, {results['test_utterances']:,} test utterances", style="bold")
    return Group(Text(), title, Text(), table, Text(), *map(Text, notes(results)), Text())


def _cells(system: System, noise: bool, answers: bool) -> list[str]:
    student = system.role == "student"
    pgr = [pgr_text(system.pgr, noise), *([bounds(system.pgr_ci95)] if system.pgr is not None else [])]
    cells = [
        system.name,
        ("yes" if system.aux else "no") if student else "",
        ("yes" if system.confidence else "no") if student else "",
        f"{fraction(system.score)}\n{bounds(system.ci95)}",
        "\n".join(pgr) if student else "",
    ]
    shares = [system.empty, system.unparsable] if answers else []
    return cells + ["" if share is None else f"{share:.1%}" for share in shares]
