"""The commands of docs/cluster.md, as the tests run them."""

import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from tiny_runs import ROOT

BIN = Path(sys.executable).parent


def commands() -> list[str]:
    """Every line of the page's blocks that does more than set the environment."""
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    lines = "".join(re.findall(r"^```\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)).splitlines()
    return list(dict.fromkeys(line for line in lines if not line.startswith("export ")))


def page_command(start: str, own: Mapping[str, str] = {}) -> list[str]:
    """The words of the page's one command that begins with `start`, each part that the reader replaces with one's own in its place."""
    (line,) = (line for line in commands() if line.startswith(start))
    program, *words = shlex.split(line.partition(" > ")[0], comments=True)
    for there, here in own.items():
        assert any(there in word for word in words), f"{there} is not in {line!r}"
        words = [word.replace(there, here) for word in words]
    return [str(BIN / program), *words]
