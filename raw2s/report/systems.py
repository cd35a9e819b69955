"""What table, figures and page show of results.json: a `System` per tested model, readably named, and notes on the numbers."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Literal

Results = dict[str, Any]
"""The content of results.json."""
Interval = tuple[float | None, float | None]

METRICS = {"slu_f1": "SLU-F1", "accuracy": "accuracy"}
METHODS = {
    "bayesian": "Bayesian multi-weak", "naive": "naive multi-weak", "joint": "joint decoding", "single": "single teacher",
    "majority": "majority vote", "dawid_skene": "Dawid-Skene", "mace": "MACE",
}  # fmt: skip
USUAL_LOSS = {"bayesian": "EDL", "naive": "CE"}
"""The loss that a method's name carries when the config does not override it."""


@dataclass(frozen=True)
class System:
    """One tested model, its scores means over the seeds. `pgr` and what follows it are a student's."""

    role: Literal["teacher", "ceiling", "student"]
    name: str
    stage: str
    """The stage that trained it, without the seed."""
    score: float
    ci95: Interval
    per_seed: list[float]
    empty: float | None = None
    unparsable: float | None = None
    aux: bool = False
    confidence: bool = False
    pgr: float | None = None
    pgr_ci95: Interval = (None, None)
    pgr_by_teacher: dict[str, float | None] | None = None

    @property
    def settings(self) -> str:
        """`soft labels and auxiliary loss`; empty for teachers and ceiling."""
        if self.role != "student":
            return ""
        return ("soft" if self.confidence else "hard") + " labels" + (" and auxiliary loss" if self.aux else "")

    @property
    def label(self) -> str:
        """The name that tells this system from all others of the run."""
        return f"{self.name} with {self.settings}" if self.settings else self.name


def method_name(method: str) -> str:
    """`joint+edl+cdpo` -> `joint decoding (EDL), then cDPO`; see `StudentConfig.label` for what comes in."""
    base, *suffixes = method.split("+")
    kind, _, teacher = base.partition(":")
    loss = next((s.upper() for s in suffixes if s in ("ce", "edl")), USUAL_LOSS.get(kind))
    name = " ".join([METHODS.get(kind, kind), *filter(None, [teacher]), *([f"({loss})"] if loss else [])])
    return f"{name}, then cDPO" if "cdpo" in suffixes else name


def list_systems(results: Results) -> list[System]:
    """Teachers, ceiling, students, in the order of results.json."""
    systems = [System("teacher", f"teacher {t['name']}", f"teacher/{t['name']}", **_scores(t)) for t in results["teachers"]]
    systems.append(System("ceiling", "ceiling (student on ground truth)", "ceiling", **_scores(results["ceiling"])))
    index = -1
    for student in results["students"]:
        method = student["method"]
        preferred = method.endswith("+cdpo")  # it follows the student it started from, and shares its number
        index += not preferred
        stage = f"cdpo/{index}" if preferred else f"student/{index}-{method.replace(':', '-')}"
        own = {key: student[key] for key in ("aux", "confidence", "pgr", "pgr_by_teacher")}
        systems.append(
            System("student", method_name(method), stage, **_scores(student), **own, pgr_ci95=tuple(student["pgr_ci95"]))
        )
    alike = Counter(system.label for system in systems)
    return [replace(s, name=f"{s.name} ({s.stage.partition('-')[0]})") if alike[s.label] > 1 else s for s in systems]


def _scores(entry: dict[str, Any]) -> dict[str, Any]:
    scores = {"score": entry["score"], "ci95": tuple(entry["ci95"]), "per_seed": entry["per_seed"]}
    return scores | {key: entry[key] for key in ("empty", "unparsable") if key in entry}


def stage_title(stage: str, systems: list[System]) -> str:
    """`cdpo/0@2` -> the label of that system and `@2`; a stage that trained none of them keeps its name."""
    base, at, seed = stage.partition("@")
    return next((s.label for s in systems if s.stage == base), base) + at + seed


def metric_name(results: Results) -> str:
    metric: str = results["metric"]
    return METRICS.get(metric, metric)


def label_files(results: Results) -> list[dict[str, Any]]:
    """The teachers that are files: scored on B, not tested. Results written before there were any lack the key."""
    return list(results.get("label_files", []))


def noisy_teachers(results: Results) -> list[str]:
    """The teachers whose gap to the ceiling is not distinguishable from none on this test set."""
    return [name for name, noise in results["gap_is_noise"].items() if noise]


def fraction(value: float | None) -> str:
    return "undefined" if value is None else f"{value:z.3f}"


def bounds(ci95: Interval) -> str:
    low, high = ci95
    return "undefined" if low is None or high is None else f"[{fraction(low)}, {fraction(high)}]"


def pgr_text(pgr: float | None, noise: bool) -> str:
    """Starred over a gap that is noise: see `notes`."""
    return fraction(pgr) + (" *" if noise and pgr is not None else "")


def listed(parts: list[str], separator: str = ", ") -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [separator.join(parts[:-1]), parts[-1]]))


def notes(results: Results) -> list[str]:
    """How to read the numbers, one sentence or two a line; what makes a PGR worthless comes first."""
    lines = []
    if noisy := noisy_teachers(results):
        lines.append(
            f"* WITHIN THE NOISE: the gap between the ceiling and {_teachers(noisy)} is not distinguishable from none "
            "(its 95 % interval reaches 0). A PGR over such a gap means nothing."
        )
    if high := [t["name"] for t in results["teachers"] if t["score"] >= results["ceiling"]["score"]]:
        lines.append(f"PGR is undefined where a teacher scores at least as high as the ceiling; here {_teachers(high)}.")
    lines.append(
        "PGR, performance gap recovered (Eq. 13): (student - teacher) / (ceiling - teacher), the mean over the "
        f"{'tested ' if label_files(results) else ''}teachers. "
        "0 is the teachers' level, 1 the ceiling's."
    )
    for file in label_files(results):
        items, all_items = sum(file["items"]), sum(file["items"]) + sum(file["missing"])
        lines.append(
            f"teacher {file['name']}, a label file: {fraction(file['score_on_b'])} {bounds(tuple(file['ci95']))} against the ground "
            f"truth of the {items:,} of {all_items:,} training items that it labels. It answers no test utterance and is in no PGR."
        )
    seeds = results["seeds"]
    spread = f"of the means over seeds {listed([str(s) for s in seeds])}" if len(seeds) > 1 else f"of one seed ({seeds[0]})"
    lines.append(
        f"Intervals in brackets: 95 %, paired bootstrap over the {results['test_utterances']:,} test utterances, {spread}; "
        "the spread from training again with other seeds comes on top."
    )
    if "empty" in results["ceiling"]:
        lines.append(
            "empty: answers that name nothing, which may be right; unparsable: not in the asked format, counted as empty."
        )
    return lines


def _teachers(names: list[str]) -> str:
    return f"teacher{'s' if len(names) > 1 else ''} {listed(names)}"
