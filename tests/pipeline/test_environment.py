"""What a run says of the code and the command that made it."""

import shlex
import subprocess

import pytest

from raw2s.pipeline.environment import command, commit_of


def git(folder, *arguments) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def test_a_checkouts_commit_is_named_and_whether_files_differ_from_it(tmp_path):
    assert commit_of(tmp_path) is None, "no checkout"
    git(tmp_path, "init", "--quiet")
    assert commit_of(tmp_path) is None, "no commit"
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "--quiet", "-m", "one")
    git(tmp_path, "tag", "v1")
    assert commit_of(tmp_path) == git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "file").write_text("two")
    assert commit_of(tmp_path) == git(tmp_path, "rev-parse", "HEAD") + ", changed"
    (tmp_path / "installed").mkdir()
    assert commit_of(tmp_path / "installed") is None, "a folder in somebody's checkout is not it"


@pytest.mark.parametrize(
    ("program", "named"), [("/venv/bin/raw2s", ["raw2s"]), ("jobs/full_pipeline.py", ["python", "jobs/full_pipeline.py"])]
)
def test_the_command_can_be_pasted(monkeypatch, program, named):
    given = ["run", "my config.yaml", "--set", "seeds=[1, 2]"]
    monkeypatch.setattr("sys.argv", [program, *given])
    assert shlex.split(command()) == [*named, *given]
