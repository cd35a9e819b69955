"""A newcomer's first hour: every command of docs/tutorial.md in a fresh clone, in order, with what each took and said last.

    python benchmarks/first_hour.py FOLDER    # a new one; writes benchmarks/results/first_hour.json and docs/first_hour.md

The clone is of the last commit. Its environment is installed by `make env` as a newcomer's is, so pip's cache counts. What a step prints on
standard output is kept, its last lines; a step that fails ends it all, and nothing is written.
"""

import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import harness

from raw2s.pipeline.artifacts import LIBRARIES

ROOT = Path(__file__).resolve().parents[1]
TUTORIAL, PAGE = ROOT / "docs" / "tutorial.md", ROOT / "docs" / "first_hour.md"
MEASURED = harness.RESULTS / "first_hour.json"
TYPED = re.compile(r"(?:make|raw2s|printf|\.) .*")
"""A line that is typed in a clone; `pip` stands for another way to install, and all else is what a command printed."""
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
LINES, WIDTH = 20, 130
"""Of what a step printed: the last ones, and how much of each."""
OWN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "MAKEFLAGS", "RAY_ADDRESS", "MLFLOW_TRACKING_URI", "OMP_NUM_THREADS")
"""Variables that a newcomer does not have."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """Of the tutorial."""

    section: str
    command: str
    """One line, or of a block of Python all of it."""
    python: bool = False


def steps_of(page: str) -> Iterator[Step]:
    """What a reader of the page types, in order."""
    for section in page.split("\n## ")[1:]:
        title = section.partition("\n")[0]
        for language, block in FENCED.findall(section):
            lines = block.splitlines()
            if language == "python":
                yield Step(section=title, command=block, python=True)
            elif all(map(TYPED.fullmatch, lines)):
                yield from (Step(section=title, command=line) for line in lines)


def taken(step: Step, clone: Path) -> dict[str, Any]:
    """Take a step in the clone, in its environment; SystemExit with all that was printed where it fails."""
    variables = {name: value for name, value in os.environ.items() if name not in OWN and not name.startswith("RAW2S_")}
    variables["PATH"] = f"{clone / '.venv' / 'bin'}{os.pathsep}{variables['PATH']}"  # as the second step leaves it
    arguments = ["python", "-c", step.command] if step.python else ["bash", "-c", step.command]
    start = time.monotonic()
    done = subprocess.run(arguments, cwd=clone, env=variables, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    seconds = time.monotonic() - start
    if done.returncode:
        raise SystemExit(f"{step.command}\nended with {done.returncode} after {seconds:.0f} s:\n{done.stdout}{done.stderr}")
    lines = done.stdout.replace(str(clone), "~/raw2s").splitlines()
    print(f"{seconds:8.1f} s  {step.command.splitlines()[0]}", flush=True)
    return {
        "section": step.section,
        "command": step.command,
        "python": step.python,
        "seconds": round(seconds, 1),
        "output": [line.rstrip()[:WIDTH] for line in lines[-LINES:]],
        "lines": len(lines),
    }


def page_of(measured: Mapping[str, Any]) -> str:
    """docs/first_hour.md."""
    environment, steps = measured["environment"], measured["steps"]
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items() if version)
    head = f"""# The first hour, timed

Every command of [tutorial.md](tutorial.md) in a fresh clone, in order, with the time that each took and the last lines that it printed:
{minutes(measured["seconds"])} in all, from the clone to the mails that a human is asked about. `python benchmarks/first_hour.py FOLDER` takes these steps
and writes this page and [first_hour.json](../benchmarks/results/first_hour.json).

{environment["date"]}, {environment["machine"]}; commit {environment["commit"]}; {versions}. pip fetched what its cache did not hold.

| step | min:s | at the end |
|---|---|---|
"""
    return head + "".join(_rows(steps)) + "".join(_transcript(steps))


def minutes(seconds: float) -> str:
    """`12 min 5 s`."""
    return f"{round(seconds) // 60} min {round(seconds) % 60} s"


def _shown(step: Mapping[str, Any]) -> str:
    return "the page's Python" if step["python"] else f"`{step['command']}`"


def _rows(steps: list[dict[str, Any]]) -> Iterator[str]:
    at = 0.0
    for step in steps:
        at += step["seconds"]
        yield f"| {_shown(step)} | {_clock(step['seconds'])} | {_clock(at)} |\n"


def _clock(seconds: float) -> str:
    return f"{round(seconds) // 60}:{round(seconds) % 60:02}"


def _transcript(steps: list[dict[str, Any]]) -> Iterator[str]:
    for section, own in groupby(steps, key=lambda step: step["section"]):
        yield f"\n## {section}\n"
        for step in own:
            said = [*(["..."] if step["lines"] > len(step["output"]) else []), *step["output"]]
            typed = "python  # the page's block" if step["python"] else step["command"]
            yield "\n```text\n" + "\n".join([f"$ {typed}", *said]) + "\n```\n"


def main() -> None:
    parser = harness.parser(__doc__, "first_hour.json")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the clone goes: a new folder, with 4 GB of room")
    arguments = parser.parse_args()
    clone = arguments.folder.resolve()
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=clone, check=True, capture_output=True, text=True).stdout
    steps = [taken(step, clone) for step in steps_of((clone / "docs" / "tutorial.md").read_text(encoding="utf-8"))]
    environment = harness.environment(*LIBRARIES, commit=commit.strip())
    measured = {"environment": environment, "seconds": round(sum(step["seconds"] for step in steps), 1), "steps": steps}
    harness.write(arguments.out, measured)
    PAGE.write_text(page_of(measured), encoding="utf-8")
    print(f"{minutes(measured['seconds'])} in all")


if __name__ == "__main__":
    main()
