"""The outcome of a run in a few plain sentences, computed from its numbers."""

from collections import Counter
from collections.abc import Callable
from typing import get_args

from raw2s.report.systems import Shown, bounds, fraction, list_systems, listed, p_text, signed
from raw2s.results import Results, Student, Verdict

SENTENCES = {
    "recovered": "{} recovered a measurable share of the mean gap to the teachers.",
    "none": "What {} recovered is not distinguishable from none.",
    "perhaps below": "{} fell below the teachers on average, by a margin not distinguishable from none.",
    "below": "{} fell below the teachers on average.",
    "noise": "Whether {} recovered anything cannot be told.",
    "undefined": "The PGR of {} is undefined.",
}
"""By verdict; the students it holds for are put in."""
AGAINST_BEST = {
    "above": "Above the best teacher that it learned from: {}.",
    "level": "Not distinguishable from the best teacher that it learned from: {}.",
    "below": "Below the best teacher that it learned from: {}.",
}
"""By `against_best`: who does not beat the best labeler has gained nothing by the others, whatever the mean gap says."""

NAMED = 3
"""Students that a sentence names; a grid has dozens."""
REAL = 0.05
"""Corrected p-values below it call a difference real."""


def verdict(student: Student, noise: bool) -> str:
    """A key of `SENTENCES`. `noise`: the gap to some teacher is; then the interval of the PGR flatters and decides nothing."""
    low, high = student.pgr_ci95
    if student.pgr is None:
        return "undefined"
    if noise:
        return "noise"
    if low is None or high is None or low <= 0 <= high:
        return "none" if student.pgr >= 0 else "perhaps below"
    return "recovered" if low > 0 else "below"


def against_best(student: Student) -> str | None:
    """A key of `AGAINST_BEST`, by the corrected p-value of the difference; None where no teacher was tested."""
    if student.over_best is None or student.over_best_p is None:
        return None
    return "level" if student.over_best_p >= REAL else "above" if student.over_best > 0 else "below"


def outcome(results: Results) -> str:
    """Who taught whom, the gap, and what was recovered of it."""
    names, ceiling = [teacher.name for teacher in results.teachers], results.ceiling
    who = f"{len(names)} weak teachers ({listed(names)})" if len(names) > 1 else f"One weak teacher ({listed(names)})"
    student = f" ({ceiling.name})" if ceiling is not None else ""
    learned = f"{who} labeled the training text, and one stronger student{student} learned from the labels."
    on_test = f"On {results.test_examples:,} test examples"
    scores = sorted(teacher.score for teacher in results.tested if teacher.score is not None)
    taught = f"the {'tested ' if results.given else ''}{'teachers score' if len(scores) > 1 else 'teacher scores'}"
    span = " to ".join(dict.fromkeys(fraction(score) for score in (scores[0], scores[-1]))) if scores else ""
    if ceiling is None:
        met = f"{on_test} {taught} {span} ({results.metric_title})." if scores else "No teacher answers test examples."
        return f"{learned} {met} There is no ground truth of the training text, so there is no ceiling and no PGR."
    if not scores:
        return (
            f"{learned} {on_test} the same student trained on ground truth, the ceiling, scores {fraction(ceiling.score)} "
            f"({results.metric_title}). Label files answer no test example, so there is no PGR."
        )
    gap = ceiling.score - scores[-1]
    best = "the best teacher" if len(results.tested) > 1 else "the teacher"
    sentences = [
        learned,
        f"{on_test} {taught} {span} ({results.metric_title}); "
        f"the same student trained on ground truth, the ceiling, scores {fraction(ceiling.score)}, "
        + (f"a gap of {fraction(gap)} to {best}." if gap > 0 else f"no more than {best}: there is no gap to recover."),
    ]
    if results.noisy and gap > 0:
        sentences.append(
            f"The gap to {listed(results.noisy)} is within the noise of this test set, so no PGR here can be relied on."
        )
    shown = [(s, s.student) for s in list_systems(results) if s.student is not None]
    for key, sentence in SENTENCES.items():
        if held := [s for s, student in shown if verdict(student, bool(results.noisy)) == key]:
            text = sentence.format(_named(held, _with_pgr))
            sentences.append(text[0].upper() + text[1:])
    for key, sentence in AGAINST_BEST.items():
        if near := [s for s, student in shown if against_best(student) == key]:
            sentences.append(sentence.format(_named(near, _over_best)))
    return " ".join([*sentences, *_between(results), *_claims(results)])


def _named(held: list[Shown], said: Callable[[Shown, Student], str]) -> str:
    """All of them, or of many the best ones and how many there are besides."""
    best = held if len(held) <= NAMED + 1 else sorted(held, key=lambda shown: -shown.score)[:NAMED]
    named = [said(shown, shown.student) for shown in best if shown.student is not None]
    return listed(named + ([f"{len(held) - len(best)} more"] if len(best) < len(held) else []), "; ")


def _over_best(shown: Shown, student: Student) -> str:
    interval, p = bounds(student.over_best_ci95), p_text(student.over_best_p)
    return f"{shown.label} ({signed(student.over_best)} to {student.best_teacher}, 95 % interval {interval}, p {p})"


def _between(results: Results) -> list[str]:
    """What the students' differences say, and what this run could have seen."""
    sentences = []
    real, count = sum(difference.p_holm < REAL for difference in results.differences), len(results.differences)
    corrected = f"real at p < {REAL} after Holm's correction."
    if count == 1:
        sentences.append(f"The difference between the two students is {'' if real else 'not '}{corrected}")
    elif count:
        sentences.append(f"Of {count} differences between students {real or 'none'} {'is' if real == 1 else 'are'} {corrected}")
    seen = [] if results.visible is None else [f"of {fraction(results.visible)} to a best teacher"]
    seen += [] if results.visible_between is None else [f"of {fraction(results.visible_between)} between two students"]
    if seen:
        seeds = f"{len(results.seeds)} seed{'s' * (len(results.seeds) > 1)}"
        sentences.append(f"{results.test_examples:,} test examples and {seeds} can see a difference {listed(seen)}.")
    return sentences


def _claims(results: Results) -> list[str]:
    if not results.claims:
        return []
    counts = Counter(claim.verdict for claim in results.claims)
    counted = listed([f"{counts[verdict]} {verdict}" for verdict in get_args(Verdict)])
    return [f"Claims of the paper that this run can test: {len(results.claims)}, of them {counted} (each in the report)."]


def _with_pgr(shown: Shown, student: Student) -> str:
    if student.pgr is None:
        return shown.label
    return f"{shown.label} (PGR {fraction(student.pgr)}, 95 % interval {bounds(student.pgr_ci95)})"
