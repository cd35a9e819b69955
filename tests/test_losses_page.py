"""The table of docs/losses.md says what benchmarks/results/losses.json says."""

import json
from collections.abc import Iterator

import pytest
from tiny_runs import ROOT

MEASURED = json.loads((ROOT / "benchmarks" / "results" / "losses.json").read_text())
PARTS = ("32k", "128k", "soft", "teachers")


def rows() -> Iterator[str]:
    """Every bar, and every variant's seconds and memory, as the page writes them."""
    for part in PARTS:
        for name, ratio in MEASURED[part]["ratios"].items():
            bar = f"{'≥' if ratio['at_least'] else '≤'} {ratio['bar']}"
            yield f"| {part} | {name} | {bar} | {ratio['measured']:.2f} | {'met' if ratio['met'] else '**missed**'} |"
    shapes = [(MEASURED[part]["cpu_seconds"], MEASURED[part]["extra_mib"]) for part in ("32k", "128k")]
    for name in shapes[0][0]:
        yield f"| {name} | " + " | ".join(f"{s[name]['min']:.2f} s, {m[name]} MiB" for s, m in shapes) + " |"
    for part in ("soft", "teachers"):
        for name, seconds in MEASURED[part]["cpu_seconds"].items():
            yield f"| {name} | {seconds['min']:.2f} s |"


@pytest.mark.parametrize("row", rows())
def test_every_measured_row_is_on_the_page(row: str) -> None:
    assert row in (ROOT / "docs" / "losses.md").read_text()


def test_bars_say_what_was_measured() -> None:
    for part in PARTS:
        result = MEASURED[part]
        assert result["environment"]["threads"] == 1 and result["environment"]["date"] and result["parity"]
        for ratio in result["ratios"].values():
            assert ratio["met"] == (ratio["measured"] >= ratio["bar"] if ratio["at_least"] else ratio["measured"] <= ratio["bar"])
        cost = {name: seconds["min"] for name, seconds in result["cpu_seconds"].items()}
        for name, ratio in result["ratios"].items():
            left, right = name.split(", time")[0].split(" / ", 1)
            if ", time" in name and left in cost and right in cost:
                assert ratio["measured"] == pytest.approx(cost[left] / cost[right], abs=1e-3)
