"""What the sweeps behind the grids found: every trial of tune_*.yaml, into benchmarks/results/tuned.json.

python benchmarks/tuned.py [--storage runs] [--out benchmarks/results/tuned.json]

Run it where `raw2s sweep configs/tune_scenario.yaml` (and its like) has ended.
"""

import json
from pathlib import Path
from typing import Any

import harness

from raw2s.pipeline.artifacts import LIBRARIES

KEPT = ("number", "values", "status", "epoch", "figure", "standard_error", "reason")


def trials_of(file: Path) -> list[dict[str, Any]]:
    """The last line of every trial; the first line of the file names the space.

    Without trials that were cut off with their sweep: it took their points up under new numbers.
    """
    found: dict[int, dict[str, Any]] = {}
    for line in file.read_text(encoding="utf-8").splitlines()[1:]:
        trial = json.loads(line)
        found[trial["number"]] = {key: trial[key] for key in KEPT}
    return [found[number] for number in sorted(found) if found[number]["status"] != "running"]


def main() -> None:
    parser = harness.parser(__doc__, "tuned.json")
    parser.add_argument("--storage", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    known = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else {}
    for sweep in sorted(arguments.storage.glob("tune_*")):
        found = {file.parent.name: trials_of(file) for file in sorted(sweep.glob("*/trials.jsonl"))}
        if found and found != known.get(sweep.name, {}).get("methods"):  # what is known keeps its date
            harness.write_part(arguments.out, sweep.name, {"methods": found}, harness.environment(*LIBRARIES, "optuna"))


if __name__ == "__main__":
    main()
