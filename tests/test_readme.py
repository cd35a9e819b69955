"""The README's tables say what the benchmark files say."""

import json
import re

import pytest
from tiny_runs import ROOT

README = (ROOT / "README.md").read_text()


def cells(results: dict) -> list[str]:
    """Every score with its interval, and every PGR with its own, as the README writes them."""
    systems = [*results["teachers"], results["ceiling"], *results["students"]]
    written = [f"{s['score']:.3f} [{s['ci95'][0]:.3f}, {s['ci95'][1]:.3f}]" for s in systems]
    return written + [f"{s['pgr']:.3f} [{s['pgr_ci95'][0]:.3f}, {s['pgr_ci95'][1]:.3f}]" for s in results["students"]]


@pytest.mark.parametrize("name", ["demo", "demo_classification"])
def test_every_figure_of_the_readme_is_in_a_benchmark_file(name):
    measured = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    for results in (measured["results"], measured["results_whole_test_set"]):
        for cell in cells(results):
            assert re.search(re.escape(cell), README), f"{cell} of {name} is not in README.md"
