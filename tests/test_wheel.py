"""A wheel built from the sdist, outside the checkout: it holds all that the package reads at run time, and works from there."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from own_mails import mails, write_jsonl
from tiny_runs import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
"""As pip and build call it."""


FIRST_STEPS = """
import sys
from raw2s.cli import DEMO, main
print(DEMO.parents[1], flush=True)
sys.exit(main(["init", "mails.jsonl"]) or main(["plan", "config.yaml"]) or main(["plan", str(DEMO)]))
"""
"""What a newcomer types first, and what `raw2s demo` would run."""


def built(what: str, source: Path, out: Path) -> Path:
    """The sdist or wheel of the tree at `source`."""
    out.mkdir()
    done = subprocess.run([sys.executable, "-c", BUILD, f"build_{what}", str(out)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


def shipped() -> set[str]:
    """The package's files in the checkout, without what Python and editors leave."""
    files = {file.relative_to(ROOT).as_posix() for file in (ROOT / "raw2s").rglob("*") if file.is_file()}
    configs = {f"raw2s/configs/{file.name}" for file in (ROOT / "configs").glob("*.yaml")}
    return {file for file in files if "__pycache__" not in file} | configs


def test_the_wheel_of_the_sdist_holds_the_whole_package(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    names = ("raw2s", "configs", "pyproject.toml", "README.md", "LICENSE", "NOTICE")
    subprocess.run(["cp", "-r", *(str(ROOT / name) for name in names), str(tree)], check=True)
    sdist = built("sdist", tree, tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (source,) = (tmp_path / "unpacked").iterdir()
    wheel = built("wheel", source, tmp_path / "wheel")
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    packaged = {name for name in held if name.startswith("raw2s/")}
    assert packaged == shipped()
    assert held["raw2s/configs/demo.yaml"] == (ROOT / "configs" / "demo.yaml").read_bytes()
    (scripts,) = (text.decode() for name, text in held.items() if name.endswith("entry_points.txt"))
    assert "raw2s = raw2s.cli:main" in scripts

    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    write_jsonl(tmp_path / "mails.jsonl", mails(0, 120))
    done = subprocess.run(
        [sys.executable, "-P", "-c", FIRST_STEPS],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == str(tmp_path / "installed" / "raw2s")
    assert len([line for line in lines if line.startswith("label ") and line.endswith("to do")]) == 2
