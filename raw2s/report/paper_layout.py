"""A run's figures in the layout of the paper's tables, each beside the paper's own."""

from dataclasses import dataclass, replace

from raw2s.report.paper_tables import PAPER, Cell, PaperTables, places
from raw2s.report.systems import fraction, list_systems, pgr_text, score_text
from raw2s.results import Results

METHODS = {"single": "single", "naive": "naive multi-weak", "joint": "joint decoding", "bayesian": "Bayesian multi-weak"}


@dataclass(frozen=True, kw_only=True)
class LaidOut:
    """A table as text; the first column names the row."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def laid_out(results: Results) -> list[LaidOut]:
    """Tables 1 and 2, or 3, 4 and 5; none of a run without a student that stands in them.

    The teachers stand beside the paper's in their order, where there are as many; a method that two students share shows the first.
    """
    paper = PAPER[results.form]
    printed = {replace(cell, teacher=None) for cell in paper.cells}
    if not any(place is not None and replace(place, teacher=None) in printed for place in places(results.students)):
        return []
    tables = [_models(results, paper, "Table 1" if results.form == "classes" else "Table 3")]
    if results.form == "classes":
        kinds = [("Table 2", True)]
    else:
        kinds = [("Table 4: hard labels", False), ("Table 5: soft labels", True)]
    return tables + [table for title, confidence in kinds if (table := _students(results, paper, title, confidence)).rows]


def _models(results: Results, paper: PaperTables, title: str) -> LaidOut:
    theirs = list(paper.teachers.items()) if len(paper.teachers) == len(results.tested) else []
    rows = []
    for index, system in enumerate(s for s in list_systems(results) if s.role == "teacher"):
        name, score = theirs[index] if theirs else ("", None)
        rows.append([system.name, score_text(system), name, fraction(score) if score is not None else ""])
    for system in list_systems(results):
        if system.role == "ceiling":
            rows.append([system.name, score_text(system), paper.student, fraction(paper.ceiling)])
        elif system.role == "baseline":
            rows.append([system.name, score_text(system), "", ""])
    return LaidOut(title=f"{title}: trained on ground truth", columns=["", results.metric_title, "paper's", "paper"], rows=rows)


def _students(results: Results, paper: PaperTables, title: str, confidence: bool) -> LaidOut:
    shown = [system for system in list_systems(results) if system.student]
    systems = {cell: own for cell, own in reversed(list(zip(places(results.students), shown, strict=True))) if cell}
    teachers = [teacher.name for teacher in results.tested]
    theirs = dict(zip(teachers, paper.teachers, strict=False)) if len(teachers) == len(paper.teachers) else {}
    rows = []
    for method, name in METHODS.items():
        for teacher in teachers if method == "single" else [None]:
            for cdpo in (False, True):
                cells: list[str] = []
                for aux in (False, True):
                    cell = Cell(method=method, teacher=teacher, confidence=confidence, aux=aux, cdpo=cdpo)
                    own = systems.get(cell)
                    student = own.student if own else None
                    printed = paper.cells.get(replace(cell, teacher=theirs.get(teacher) if teacher else None))
                    cells += [score_text(own), pgr_text(student.pgr, bool(results.noisy))] if own and student else ["", ""]
                    cells += [fraction(printed.score), fraction(printed.pgr)] if printed else ["", ""]
                if cells[0] or cells[4]:
                    rows.append([(f"{name}: {teacher}" if teacher else name) + (", then cDPO" if cdpo else ""), *cells])
    metric = results.metric_title
    columns = [f"{column}{with_aux}" for with_aux in ("", " (aux)") for column in (metric, "PGR", "paper", "PGR, paper")]
    return LaidOut(title=title, columns=["", *columns], rows=rows)
