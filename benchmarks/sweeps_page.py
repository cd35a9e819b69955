"""The tables of docs/sweeps.md from benchmarks/results/sweeps.json.

python benchmarks/sweeps_page.py
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import harness
import numpy as np

from raw2s.tuning.space import value_text

PAGE = Path(__file__).resolve().parents[1] / "docs" / "sweeps.md"
MEASURED = harness.RESULTS / "sweeps.json"
START, END = "<!-- benchmarks/sweeps_page.py writes from here -->", "<!-- to here -->"
WEIGHTS = {
    "uniform": "uniform",
    "swept": "found by the sweep",
    "hand-set": "set by hand",
    "devel": "fitted to devel (EM)",
    "raven": "RAVEN",
}


def lines_of(results: Mapping[str, Any]) -> list[str]:
    """What the page says of every task whose comparison is done, line by line; nothing of no results."""
    return [line for name, found in results.items() if "settings" in found for line in _task(name, found)]


def _task(name: str, found: Mapping[str, Any]) -> Iterator[str]:
    environment, trials = found["environment"], found["trials"]
    best = next(trial for trial in trials if trial["number"] == found["best"])
    ended = sum(trial["status"] in ("finished", "stopped") for trial in trials)
    yield f"### {name}"
    yield ""
    yield f"{ended} trials, {len(found['seeds'])} training seeds, {found['test_examples']:,} test examples ({environment['date']},"
    yield f"{environment['machine']}). The best trial had {found['metric']} {best['figure']:.3f} on devel, with"
    yield f"{', '.join(f'`{key}` {value_text(value)}' for key, value in best['values'].items())}."
    yield ""
    yield f"| weights | γ_max, λ_EDL, learning rate | {', '.join(found['teachers'])} | {found['metric']} on test | against uniform |"
    yield "|---|---|---|---|---|"
    for row in found["settings"]:
        mean = ", ".join(f"{weight:.2f}" for weight in np.mean(row["weights_per_seed"], axis=0))
        values = "set by hand" if row["values"] == "hand-set" else "found by the sweep"
        score = f"{row['score']:.3f} {_interval(row['ci95'], '.3f')}"
        is_reference = row["weights"] == "uniform" and row["values"] == "swept"
        against = "" if is_reference else f"{row['difference']:+.3f} {_interval(row['difference_ci95'], '+.3f')}"
        yield f"| {WEIGHTS[row['weights']]} | {values} | {mean} | {score} | {against} |"
    yield ""
    yield from _told(found["settings"])
    yield ""
    if isinstance(found["importance"], str):  # why it cannot be told
        yield found["importance"]
        yield ""
    else:
        yield "| key | share of the variance on devel |"
        yield "|---|---|"
        for key, share in found["importance"].items():
            yield f"| `{key}` | {share:.2f} |"
        yield ""


def _told(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Which ways to weigh differ from uniform by more than noise, of those with the sweep's other values."""
    ways = [row for row in rows if row["values"] == "swept" and row["weights"] != "uniform"]
    above = [WEIGHTS[row["weights"]] for row in ways if row["difference_ci95"][0] > 0]
    below = [WEIGHTS[row["weights"]] for row in ways if row["difference_ci95"][1] < 0]
    level = [WEIGHTS[row["weights"]] for row in ways if row["difference_ci95"][0] <= 0 <= row["difference_ci95"][1]]
    sides = (("Above", above), ("Below", below), ("Not to be told from", level))
    yield " ".join(f"{side} uniform weights: {', '.join(names)}." for side, names in sides if names)


def _interval(ci95: list[float], form: str) -> str:
    return f"[{ci95[0]:{form}}, {ci95[1]:{form}}]"


def written(page: str, results: Mapping[str, Any]) -> str:
    """The page with the tables between its two marks."""
    before, rest = page.split(f"{START}\n")
    return "\n".join([f"{before}{START}", *lines_of(results), f"{END}{rest.split(END)[1]}"])


def measured() -> dict[str, Any]:
    """The results so far; empty before the first run."""
    return json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.exists() else {}


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), measured()), encoding="utf-8")
