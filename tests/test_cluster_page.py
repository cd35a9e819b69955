"""docs/cluster.md: its commands are run by a test, and its table says what benchmarks/results/process_starts.json says."""

import json
import re

from cluster_page import commands
from tiny_runs import ROOT

PAGE = (ROOT / "docs" / "cluster.md").read_text().partition("## Process starts")[2]
MEASURED = json.loads((ROOT / "benchmarks" / "results" / "process_starts.json").read_text())
NOT_RUN = ("ray up", "ray dashboard", "ray down", "kubectl", "docker")
"""As the page says: no account, no cluster of Kubernetes, no builder of images, no machines to reach by ssh."""


def test_every_command_is_run_by_a_test_or_said_not_to_be():
    tests = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("*.py"))
    run = set(re.findall(r'page_command\("([^"]+)"', tests))
    missed = [line for line in commands() if not line.startswith((*NOT_RUN, *run))]
    assert not missed and len(run) > 5
    page = " ".join((ROOT / "docs" / "cluster.md").read_text(encoding="utf-8").split())
    assert "No test runs " + ", ".join(f"`{own}`" for own in NOT_RUN) in page


def test_every_stage_stands_in_the_table():
    before, after = MEASURED["as_ever"], MEASURED["forked"]
    rows = {f"`{name}`": (seconds, after["stages"][name]) for name, seconds in before["stages"].items() if seconds >= 1}
    rows["the whole demo, seconds"] = before["seconds"], after["seconds"]
    rows["peak memory of all processes, GiB"] = before["peak_memory_gib"], after["peak_memory_gib"]
    for name, (one, other) in rows.items():
        assert f"| {name} | {one:.1f} | {other:.1f} | {other / one:.2f} |" in PAGE
    assert PAGE.count("\n| ") == len(rows) + 1, "a row that no measurement has"
