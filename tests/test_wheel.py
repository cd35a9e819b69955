"""What a wheel holds that was built from the sdist, outside the checkout: all that the package reads at run time."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from tiny_runs import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
"""As pip and build call it."""


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
