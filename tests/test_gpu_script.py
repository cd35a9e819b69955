"""benchmarks/gpu.py on a machine without a GPU: a part that fails is written down and the rest goes on."""

import json
import sys
import time

import gpu
import gpu_beams
import pytest


@pytest.fixture
def parts(monkeypatch):
    """Makes the given function a part."""
    monkeypatch.setattr(gpu, "PARTS", {})

    def add(name, run):
        monkeypatch.setitem(gpu.PARTS, name, run)

    return add


def run(monkeypatch, tmp_path, *arguments):
    file = tmp_path / "results" / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--tiny", "--out", str(file), *arguments])
    code = gpu.main()
    return code, json.loads(file.read_text())


def test_a_failing_part_is_written_down_and_the_rest_goes_on(parts, monkeypatch, tmp_path, capsys):
    def fails(out, tiny):
        out.write_text(json.dumps({"before": {"ms": 1.5, "bar": 2}}))
        raise ValueError("no such kernel")

    parts("first", fails)
    parts("second", lambda out, tiny: {"tiny": tiny})
    code, results = run(monkeypatch, tmp_path)
    assert code == 1
    first = results["parts"]["first"]
    assert first["before"] == {"ms": 1.5, "bar": 2}, "what it had found is lost"
    assert first["failed"][-1] == "ValueError: no such kernel"
    assert results["parts"]["second"]["tiny"] is True
    assert results["environment"]["card"] and results["environment"]["torch"] and results["environment"]["date"]
    assert json.loads(capsys.readouterr().out) == {"part": "first", "failed": first["failed"]}
    assert [file.name for file in (tmp_path / "results").iterdir()] == ["gpu.json"]


def test_results_are_written_after_each_part(parts, monkeypatch, tmp_path):
    def looks(out, tiny):
        return {"seen": json.loads((tmp_path / "results" / "gpu.json").read_text())["parts"]["one"]["ms"]}

    parts("one", lambda out, tiny: {"ms": 7})
    parts("two", looks)
    code, results = run(monkeypatch, tmp_path)
    assert (code, results["parts"]["two"]["seen"]) == (0, 7)


def test_a_part_that_runs_over_is_broken_off_even_where_it_catches_exceptions(parts, monkeypatch, tmp_path):
    def slow(out, tiny):
        for _ in range(100):
            try:
                time.sleep(0.1)
            except Exception:
                return {"caught": True}

    parts("slow", slow)
    parts("late", lambda out, tiny: {})
    code, results = run(monkeypatch, tmp_path, "--seconds", "0.2")
    assert code == 1
    assert set(results["parts"]["slow"]) == {"failed", "part_seconds"}
    assert results["parts"]["late"] == {"failed": ["no time left"]}


def test_only_the_named_parts_run(parts, monkeypatch, tmp_path):
    for name in ("one", "other"):
        parts(name, lambda out, tiny: {})
    assert list(run(monkeypatch, tmp_path, "other")[1]["parts"]) == ["other"]
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path, "another")


@pytest.mark.slow
def test_the_beams_part_runs_here_too(tmp_path):
    found = gpu_beams.run(tmp_path / "gpu_beams.json", tiny=True)
    assert not [name for name, figures in found.items() if "error" in figures]
    assert found["beams_agree"]["candidates_shared_fp32"] == 1
    assert json.loads((tmp_path / "gpu_beams.json").read_text()).keys() == found.keys()
