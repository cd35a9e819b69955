"""docs/results.md says what the runs behind it found."""

from pathlib import Path

import pytest

from raw2s.report.markdown import end_mark, run_section, start_mark
from raw2s.results import Results

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
FOUND = sorted(
    file for start in ("grid", "doubt", "follow") for file in (ROOT / "benchmarks" / "results").glob(f"{start}_*.json")
)


@pytest.mark.parametrize("file", FOUND, ids=lambda file: file.stem)
def test_a_section_is_made_of_its_runs_results(file):
    results = Results.model_validate_json(file.read_text(encoding="utf-8"))
    assert f"{start_mark(results.run)}\n{run_section(results)}\n{end_mark(results.run)}" in PAGE


def test_every_section_has_results():
    marks = [line for line in PAGE.splitlines() if line.endswith("writes from here -->")]
    assert sorted(marks) == sorted(start_mark(file.stem) for file in FOUND)
