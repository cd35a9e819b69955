"""The tables of docs/cluster.md say what benchmarks/results/{process_starts,placement}.json say."""

import json
from collections.abc import Iterator
from typing import Any

from tiny_runs import ROOT

PAGE = (ROOT / "docs" / "cluster.md").read_text()


def measured(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def stages() -> Iterator[str]:
    found = measured("process_starts")
    before, after = found["as_ever"], found["forked"]
    rows = {f"`{name}`": (seconds, after["stages"][name]) for name, seconds in before["stages"].items() if seconds >= 1}
    rows["the whole demo, seconds"] = before["seconds"], after["seconds"]
    rows["peak memory of all processes, GiB"] = before["peak_memory_gib"], after["peak_memory_gib"]
    for name, (one, other) in rows.items():
        yield f"| {name} | {one:.1f} | {other:.1f} | {other / one:.2f} |"


def clusters() -> Iterator[str]:
    for teachers, by_nodes in measured("placement")["teachers"].items():
        for nodes, found in by_nodes.items():
            yield (
                f"| {teachers} | {nodes} | {found['seconds_a_row']:.2f} | {100 * found['device_share']:.0f} % | "
                f"{found['efficiency']:.2f} |"
            )


def test_every_stage_and_every_cluster_stands_in_its_table():
    rows = [*stages(), *clusters()]
    missing = [row for row in rows if row not in PAGE]
    assert not missing
    assert PAGE.count("\n| ") == len(rows) + 2, "a row that no measurement has"
