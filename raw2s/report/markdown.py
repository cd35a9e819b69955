"""What a run found, as a section of a Markdown page: the paper's tables beside ours, and what becomes of the paper's claims."""

from collections.abc import Sequence

from raw2s.report.doubt import ANSWERS, list_doubted
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
        lines += _section(table.title, table.columns, table.rows)
    lines += [*_claims(results), *_by_teachers(results), *_against_best(results), *_doubt(results), *_calibration(results)]
    lines += _doubt_claims(results)
    return "\n".join([*lines, *(f"- {note}" for note in notes(results))])


def _claims(results: Results) -> list[str]:
    rows = [
        [c.statement, "no figure" if c.paper is None else signed(c.paper), signed(c.effect), bounds(c.ci95), p_text(c.p_holm), c.verdict]
        for c in results.claims
    ]  # fmt: skip
    columns = ["claim", "paper", "here", "95 % interval", "p, corrected", "verdict"]
    return _section("What the paper claims", columns, rows)


def _by_teachers(results: Results) -> list[str]:
    rows = [
        [s.label, str(s.teachers), str(len(s.stages)), fraction(s.score), bounds(s.ci95), fraction(s.pgr)]
        for s in results.by_teachers
    ]
    columns = ["method", "teachers", "students", results.metric_title, "95 % interval", "PGR"]
    return _section("By the number of teachers", columns, rows) + ([BY_TEACHERS, ""] if rows else [])


def _against_best(results: Results) -> list[str]:
    rows = [
        [own.label, fraction(s.score), signed(s.over_best), bounds(s.over_best_ci95), p_text(s.over_best_p), s.best_teacher or ""]
        for own in list_systems(results)
        if (s := own.student) is not None
    ]
    columns = ["student", results.metric_title, "over its best teacher", "95 % interval", "p, corrected", "best teacher"]
    return _section("Against the best teacher", columns, rows)


def _doubt(results: Results) -> list[str]:
    rows = [
        [
            own.label,
            d.measure.replace("_", " "),
            f"{fraction(d.auroc)} {bounds(d.auroc_ci95)}",
            f"{fraction(d.aurc)} {bounds(d.aurc_ci95)}",
            f"{fraction(d.at_80)} {bounds(d.at_80_ci95)}",
            fraction(own.score),
            f"{signed(d.gain_80)} {bounds(d.gain_80_ci95)}",
        ]
        for own in list_doubted(results)
        for d in own.doubt
    ]
    metric = results.metric_title
    columns = ["student", "measure", "AUROC of error", "AURC", f"{metric} of the surest 80 %", f"{metric} of all", "the gain"]
    return _section("How well doubt tells errors", columns, rows)


def _calibration(results: Results) -> list[str]:
    rows = [
        [own.label, name, fraction(e.nll), fraction(e.brier), fraction(e.ece), fraction(e.rms_ce)]
        for own in list_doubted(results)
        if own.calibration is not None
        for name, e in (("as it is", own.calibration.as_is), ("after a temperature", own.calibration.scaled))
        if e is not None
    ]
    return _section("Calibration", ["student", "probabilities", "NLL", "Brier", "ECE", "rms, debiased"], rows)


def _doubt_claims(results: Results) -> list[str]:
    rows = [[c.statement, signed(c.effect), bounds(c.ci95), p_text(c.p_holm), ANSWERS[c.verdict]] for c in results.doubt_claims]
    return _section("What doubt is worth", ["does it?", "by", "95 % interval", "p, corrected", "answer"], rows)


def _section(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Nothing without a row."""
    return [f"### {title}", "", *_table(columns, rows), ""] if rows else []


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Cells are text: a bar in one does not end it."""
    body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in ([*columns], ["---"] * len(columns), *body)]
