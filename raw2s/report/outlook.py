"""Whether an ensemble should work, as two small tables and a sentence of advice."""

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from raw2s.outlook import Ensemble, Outlook
from raw2s.report.systems import bounds, fraction, signed
from raw2s.report.table import plain_table


def advice(ensembles: Sequence[Ensemble], oracle: Ensemble | None, best: str | None, teachers: int) -> str:
    """What the last of the ensembles, which is nearest to what the losses mix, is worth over the best teacher."""
    if oracle is None:
        return (
            "No teacher is a model, and label files say nothing of devel: how good they are is not known, only how often two of them "
            "agree. Where they differ, at least one is wrong."
        )
    if teachers < 2:
        return f"{best} is the only teacher that is a model: there is nothing to combine on devel."
    ensemble = ensembles[-1]
    low, high = ensemble.ci95
    if low is not None and low > 0:
        then = "an ensemble should help"
    elif high is not None and high < 0:
        then = "the others draw the best one down; give it more weight (weights.loss), or train on it alone"
    else:
        then = "that may be nothing; expect little from an ensemble"
    return (
        f"{teachers} teachers together ({ensemble.name}) are worth {signed(ensemble.over_best)} {bounds(ensemble.ci95)} over the best one "
        f"({best}) on devel: {then}. Whoever knew the best of their answers would gain {signed(oracle.over_best)}."
    )


def outlook_table(outlook: Outlook) -> Group:
    """A rich renderable that fits 80 columns."""
    devel = f"{outlook.devel_examples:,} devel examples, " if outlook.teachers else ""
    head = f"{outlook.run}: {outlook.task}, {devel}{outlook.b_examples:,} in B, seed {outlook.seed}"
    notes = "same: share of B with the same answer, without truth."
    shown: list[Text | Table] = [Text(), Text(head, style="bold")]
    if outlook.teachers:
        shown += [Text(), _scores(outlook)]
        notes = (
            "Brackets: 95 %, bootstrap over the devel examples. majority: of the first choices, ties shared; best answer: where of all "
            "answers the best were known. The best teacher is the best on devel, which flatters it. errors: correlation (phi) of their "
            f"errors on devel; 0 is best for an ensemble, 1 adds nothing. {notes}"
        )
    if outlook.pairs:
        shown += [Text(), _pairs(outlook)]
    return Group(*shown, Text(), Text(outlook.advice), Text(), Text(notes, style="dim"), Text())


def _scores(outlook: Outlook) -> Table:
    table = plain_table()
    table.add_column("on devel", overflow="fold")
    for heading in (outlook.metric_title, "[interval]", "ECE", "over the best", "[interval]"):
        table.add_column(Text(heading), justify="right", no_wrap=True)
    for teacher in outlook.teachers:
        cells = [teacher.name, fraction(teacher.score), bounds(teacher.ci95), fraction(teacher.ece), "", ""]
        table.add_row(*map(Text, cells), end_section=teacher is outlook.teachers[-1])
    for own in filter(None, (*outlook.ensembles, outlook.oracle)):
        table.add_row(*map(Text, [own.name, fraction(own.score), "", "", signed(own.over_best), bounds(own.ci95)]))
    return table


def _pairs(outlook: Outlook) -> Table:
    table = plain_table()
    table.add_column("of two teachers", overflow="fold")
    errors, kappa = bool(outlook.teachers), outlook.form == "classes"
    for heading in (*(["errors"] if errors else []), "same", *(["kappa"] if kappa else [])):
        table.add_column(Text(heading), justify="right", no_wrap=True)
    for pair in outlook.pairs:
        told = [*([pair.error_correlation] if errors else []), pair.same_on_b, *([pair.kappa_on_b] if kappa else [])]
        table.add_row(*map(Text, [f"{pair.one}, {pair.other}", *map(fraction, told)]))
    return table
