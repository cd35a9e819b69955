"""The table of docs/cluster.md says what benchmarks/results/process_starts.json says."""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "cluster.md").read_text()
MEASURED = json.loads((ROOT / "benchmarks" / "results" / "process_starts.json").read_text())


def test_every_stage_stands_in_the_table():
    before, after = MEASURED["as_ever"], MEASURED["forked"]
    rows = {f"`{name}`": (seconds, after["stages"][name]) for name, seconds in before["stages"].items() if seconds >= 1}
    rows["the whole demo, seconds"] = before["seconds"], after["seconds"]
    rows["peak memory of all processes, GiB"] = before["peak_memory_gib"], after["peak_memory_gib"]
    for name, (one, other) in rows.items():
        assert f"| {name} | {one:.1f} | {other:.1f} | {other / one:.2f} |" in PAGE
    assert PAGE.count("\n| ") == len(rows) + 1, "a row that no measurement has"
