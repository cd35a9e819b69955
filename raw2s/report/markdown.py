"""What a run found, as a section of a Markdown page: the paper's tables beside ours, and what becomes of the paper's claims."""

from collections.abc import Sequence

from raw2s.report.outcome import outcome
from raw2s.report.paper_layout import laid_out
from raw2s.report.systems import BY_TEACHERS, bounds, fraction, list_systems, notes, p_text, signed
from raw2s.results import Results


def start_mark(run: str) -> str:
    return f"<!-- {run}: jobs/reproduce_paper.py writes from here -->"


def end_mark(run: str) -> str:
    return f"<!-- {run}: to here -->"


def put_into(page: str, results: Results) -> str:
    """The page with the run's section in place of its former one, or at the end."""
    start, end = start_mark(results.run), end_mark(results.run)
    section = f"{start}\n{run_section(results)}\n{end}"
    if start not in page:
        return f"{page.rstrip()}\n\n{section}\n".lstrip()
    before, rest = page.split(start, 1)
    return f"{before}{section}{rest.split(end, 1)[1]}"


def run_section(results: Results) -> str:
    """Heading, how it was measured, the tables, the claims, and how to read them."""
    seeds = f"seeds {', '.join(map(str, results.seeds))}" if len(results.seeds) > 1 else f"seed {results.seeds[0]}"
    environment = ", ".join(f"{name} {value}" for name, value in results.environment.items())
    hours = sum(stage.seconds for stage in results.stages) / 3600
    lines = [
        f"## {results.run}: {results.task}",
        "",
        f"{results.test_examples:,} test examples, {seeds}; finished {results.finished}; {environment}. "
        f"{len({stage.key for stage in results.stages})} stages, {hours:.1f} hours if one ran after the other.",
        "",
        outcome(results),
        "",
    ]
    for table in laid_out(results):
        lines += [f"### {table.title}", "", *_table(table.columns, table.rows), ""]
    if results.claims:
        rows = [
            [c.statement, "no figure" if c.paper is None else signed(c.paper), signed(c.effect), bounds(c.ci95), p_text(c.p_holm), c.verdict]
            for c in results.claims
        ]  # fmt: skip
        columns = ["claim", "paper", "here", "95 % interval", "p, corrected", "verdict"]
        lines += ["### What the paper claims", "", *_table(columns, rows), ""]
    if results.by_teachers:
        rows = [
            [s.label, str(s.teachers), str(len(s.stages)), fraction(s.score), bounds(s.ci95), fraction(s.pgr)]
            for s in results.by_teachers
        ]
        columns = ["method", "teachers", "students", results.metric_title, "95 % interval", "PGR"]
        lines += ["### By the number of teachers", "", *_table(columns, rows), "", BY_TEACHERS, ""]
    if results.students:
        rows = [
            [
                shown.label,
                fraction(s.score),
                signed(s.over_best),
                bounds(s.over_best_ci95),
                p_text(s.over_best_p),
                s.best_teacher or "",
            ]
            for shown in list_systems(results)
            if (s := shown.student) is not None
        ]
        columns = ["student", results.metric_title, "over its best teacher", "95 % interval", "p, corrected", "best teacher"]
        lines += ["### Against the best teacher", "", *_table(columns, rows), ""]
    return "\n".join([*lines, *(f"- {note}" for note in notes(results))])


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Cells are text: a bar in one does not end it."""
    body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in ([*columns], ["---"] * len(columns), *body)]
