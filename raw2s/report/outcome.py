"""The outcome of a run in a few plain sentences, computed from its numbers."""

from raw2s.report.systems import Results, System, bounds, fraction, label_files, list_systems, listed, metric_name, noisy_teachers

SENTENCES = {
    "recovered": "{} recovered a measurable share of the gap.",
    "none": "What {} recovered is not distinguishable from none.",
    "perhaps below": "{} fell below the teachers on average, by a margin not distinguishable from none.",
    "below": "{} fell below the teachers on average.",
    "noise": "Whether {} recovered anything cannot be told.",
    "undefined": "The PGR of {} is undefined.",
}
"""By verdict; the students it holds for are put in."""


def verdict(student: System, noise: bool) -> str:
    """A key of `SENTENCES`. `noise`: the gap to some teacher is; then the interval of the PGR flatters and decides nothing."""
    low, high = student.pgr_ci95
    if student.pgr is None:
        return "undefined"
    if noise:
        return "noise"
    if low is None or high is None or low <= 0 <= high:
        return "none" if student.pgr >= 0 else "perhaps below"
    return "recovered" if low > 0 else "below"


def outcome(results: Results) -> str:
    """Who taught whom, the gap, and what was recovered of it."""
    teachers, files, ceiling = results["teachers"], label_files(results), results["ceiling"]
    every = [t["name"] for t in [*teachers, *files]]
    who = f"{len(every)} weak teachers ({listed(every)})" if len(every) > 1 else f"One weak teacher ({listed(every)})"
    learned = f"{who} labelled the training text, and one stronger student ({ceiling['name']}) learned from the labels."
    if not teachers:
        return (
            f"{learned} On {results['test_utterances']:,} test utterances the same student trained on ground truth, the ceiling, "
            f"scores {fraction(ceiling['score'])} ({metric_name(results)}). Label files answer no test utterance, so there is no PGR."
        )
    scores = sorted(t["score"] for t in teachers)
    several = len(teachers) > 1
    gap = ceiling["score"] - scores[-1]
    best = "the best teacher" if several else "the teacher"
    sentences = [
        learned,
        f"On {results['test_utterances']:,} test utterances the {'tested ' if files else ''}{'teachers score' if several else 'teacher scores'} "
        f"{' to '.join(dict.fromkeys([fraction(scores[0]), fraction(scores[-1])]))} ({metric_name(results)}); "
        f"the same student trained on ground truth, the ceiling, scores {fraction(ceiling['score'])}, "
        + (f"a gap of {fraction(gap)} to {best}." if gap > 0 else f"no more than {best}: there is no gap to recover."),
    ]
    noisy = noisy_teachers(results)
    if noisy and gap > 0:
        sentences.append(f"The gap to {listed(noisy)} is within the noise of this test set, so no PGR here can be relied on.")
    students = [s for s in list_systems(results) if s.role == "student"]
    for key, sentence in SENTENCES.items():
        if held := [_with_pgr(s) for s in students if verdict(s, bool(noisy)) == key]:
            text = sentence.format(listed(held, "; "))
            sentences.append(text[0].upper() + text[1:])
    return " ".join(sentences)


def _with_pgr(student: System) -> str:
    if student.pgr is None:
        return student.label
    return f"{student.label} (PGR {fraction(student.pgr)}, 95 % interval {bounds(student.pgr_ci95)})"
