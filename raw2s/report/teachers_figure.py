"""The figure of the scores against the number of teachers."""

import matplotlib as mpl
from matplotlib.figure import Figure

from raw2s.report.figures import BLUE, GREEN, GREY, INK, STYLE, VERMILION, WIDTH
from raw2s.results import Results

SERIES = [(BLUE, "o"), (VERMILION, "s"), (GREEN, "D"), (INK, "^"), (GREY, "v")]


def teachers_figure(results: Results) -> Figure:
    """Every student's score at the number of its teachers, and the means of a method's students joined by a line."""
    scores = {student.stage: student.score for student in results.students}
    methods = list(dict.fromkeys(some.label for some in results.by_teachers))
    beside: dict[int, list[str]] = {}
    for some in results.by_teachers:
        beside.setdefault(some.teachers, []).append(some.label)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.6 + 0.2 * len(methods)), layout="constrained")
        axes = figure.subplots()
        for place, method in enumerate(methods):
            own = [some for some in results.by_teachers if some.label == method]
            color, marker = SERIES[place % len(SERIES)]
            at = [some.teachers + 0.08 * beside[some.teachers].index(method) for some in own]
            for x, some in zip(at, own, strict=True):
                dots = [scores[stage] for stage in some.stages] if len(some.stages) > 1 else []
                axes.plot([x - 0.05] * len(dots), dots, marker, color=color, markersize=4, alpha=0.45, markeredgewidth=0)
                ends = [end for end in some.ci95 if end is not None]
                axes.plot([x] * len(ends), ends, color=color, linewidth=2, solid_capstyle="butt")
            axes.plot(at, [some.score for some in own], f"{marker}-", color=color, markersize=7, label=method)
        axes.set_xticks(sorted({some.teachers for some in results.by_teachers}))
        axes.set_xlabel("teachers that a student learned from")
        axes.set_ylabel(results.metric_title)
        figure.legend(loc="outside upper left")
    return figure
