"""docs/cluster.md: its commands are run by a test, and its figures are those of benchmarks/results/{kills,placement,process_starts}.json."""

import json
import re

from cluster_page import commands
from tiny_runs import ROOT

PAGE, _, STARTS = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8").partition("## Process starts")
NODES = PAGE.partition("## More teachers than nodes")[2]
RESULTS = ROOT / "benchmarks" / "results"
NOT_RUN = ("ray up", "ray dashboard", "ray down", "kubectl", "docker")
"""As the page says: no account, no cluster of Kubernetes, no builder of images, no machines to reach by ssh."""


def test_every_command_is_run_by_a_test_or_said_not_to_be():
    tests = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("*.py"))
    run = set(re.findall(r'page_command\("([^"]+)"', tests))
    missed = [line for line in commands() if not line.startswith((*NOT_RUN, *run))]
    assert not missed and len(run) > 5
    assert "No test runs " + ", ".join(f"`{own}`" for own in NOT_RUN) in " ".join(PAGE.split())


def test_the_kills_are_those_that_the_page_tells():
    measured = json.loads((RESULTS / "kills.json").read_text(encoding="utf-8"))
    kills = [(part, kill) for part in ("pipeline", "nodes") for kill in measured[part]["kills"]]
    assert f"Of {len(kills)} kills none left a process running" in PAGE
    assert all(kill["left_running"] == [] for _, kill in kills)
    kinds = {kill["kind"] for _, kill in kills}
    for part, victims in (("pipeline", 6), ("nodes", 2)):
        assert len({(kill["kind"], kill["victim"]) for own, kill in kills if own == part}) == len(kinds) * victims == 8 * victims
        assert measured[part]["artifacts_equal"]
        assert f"all {measured[part]['artifacts']} artifacts" in " ".join(PAGE.split())


def test_every_number_of_teachers_and_nodes_stands_in_the_table():
    """And four nodes lose no more than a tenth."""
    measured = json.loads((RESULTS / "placement.json").read_text(encoding="utf-8"))
    short, long = (measured[part]["teachers"] for part in ("8 s", "24 s"))
    rows = 0
    for teachers, by_nodes in long.items():
        assert by_nodes["4"]["efficiency"] >= 0.9
        for nodes, own in by_nodes.items():
            brief = short[teachers][nodes]
            rows += 1
            assert (
                f"| {teachers} | {nodes} | {brief['seconds_a_row']:.2f} | {brief['efficiency']:.2f} | {own['seconds_a_row']:.2f} "
                f"| {100 * own['device_share']:.0f} % | {own['efficiency']:.2f} |"
            ) in NODES
    assert NODES.count("\n| ") == rows + 1, "a row that no measurement has"
    least = [min(part[teachers]["4"]["efficiency"] for teachers in part) for part in (long, short)]
    assert "at least {:.2f} of it; with 8, {:.2f}".format(*least) in NODES


def test_every_stage_stands_in_the_table():
    measured = json.loads((RESULTS / "process_starts.json").read_text(encoding="utf-8"))
    before, after = measured["as_ever"], measured["forked"]
    rows = {f"`{name}`": (seconds, after["stages"][name]) for name, seconds in before["stages"].items() if seconds >= 1}
    rows["the whole demo, seconds"] = before["seconds"], after["seconds"]
    rows["peak memory of all processes, GiB"] = before["peak_memory_gib"], after["peak_memory_gib"]
    for name, (one, other) in rows.items():
        assert f"| {name} | {one:.1f} | {other:.1f} | {other / one:.2f} |" in STARTS
    assert STARTS.count("\n| ") == len(rows) + 1, "a row that no measurement has"
