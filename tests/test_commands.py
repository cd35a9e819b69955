"""Every command on the README, CONTRIBUTING.md and the pages of docs/ is one: its parser takes it, its keys are keys, its files are there.

Nothing is run. A word in capitals, or a file that is no part of the repository, stands for the reader's own.
"""

import argparse
import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from tiny_runs import ROOT, tiny_run

from raw2s.arguments import command_parser
from raw2s.cli import LISTED, main
from raw2s.config import load_config, parse_config, put_over
from raw2s.errors import ConfigError
from raw2s.tasks import draw_halves, task_of
from raw2s.tuning.reading import load_sweeps

TRANSCRIPT = "first_hour.md"
"""Of the tutorial's commands with what they printed, which tests/test_first_hour.py holds to them."""
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(p for p in (ROOT / "docs").glob("*.md") if p.name != TRANSCRIPT)]
COMMAND = re.compile(r"(?:\S*/)?(?:raw2s|python (?:jobs|benchmarks)/\w+\.py|make|\.ci/\w+|pytest)(?: .*)?")
PART = re.compile(r"^(?:configs|jobs|benchmarks|tests|docs|\.ci)/")
"""Of a file that the repository must have; runs and others are made."""
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)


def commands(page: Path) -> list[tuple[str, bool]]:
    """The commands of a page, and whether each stands in a block, so that it is whole, or in the text."""
    blocks, plain, fenced = [], [], False
    for line in page.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            blocks.append(line.rpartition(" -- ")[2].strip())  # of `ray job submit`, what it runs
        else:
            plain.append(line)
    inline = [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", "\n".join(plain))]
    return [(text, text in blocks) for text in dict.fromkeys([*blocks, *inline]) if COMMAND.fullmatch(text)]


CASES = sorted({(page.name, *command) for page in PAGES for command in commands(page)})


def words(command: str) -> list[str]:
    """Its words; of what a synopsis leaves open, all that is optional and the first of what may be chosen."""
    whole = re.sub(r" \[((?:-|[A-Z])[^\]]*?)(?: \.{3})?\]", r" \1", command)
    return [re.sub(r"^(\w+)\|[\w|]+$", r"\1", word) for word in shlex.split(whole, comments=True)]


class Parsed(Exception):
    """What a script's parser made of its arguments; raised in place of going on."""

    def __init__(self, arguments: argparse.Namespace):
        self.arguments = arguments


def parsed_by(script: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """What the script's own parser makes of the arguments."""
    parse = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, *given: object) -> None:
        raise Parsed(parse(self, arguments))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    spec = importlib.util.spec_from_file_location(script.stem, script)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, script.stem, module)
    spec.loader.exec_module(module)
    with pytest.raises(Parsed) as caught:
        module.main()
    found = caught.value.arguments
    known = {*getattr(module, "PARTS", ()), *getattr(module, "MORE_PARTS", ())}
    assert set(getattr(found, "parts", None) or ()) <= known
    return found


def check_keys(config: Path, overrides: list[str], sweep: bool) -> None:
    """Every `--set` is a key of the config, or where that is the reader's own, of one that names everything."""
    given = [override.replace("KEY=VALUE", "seeds=[1]") for override in overrides]
    if config.is_absolute() or PART.match(str(config)):
        found = load_sweeps(ROOT / config, given) if sweep else load_config(ROOT / config, given)
        assert found
        return
    tree = tiny_run(ROOT)
    for override in given:
        put_over(tree, override)
    parse_config(tree)


@pytest.mark.parametrize(("page", "command", "whole"), CASES, ids=lambda value: str(value))
def test_a_command_on_a_page_is_one(page, command, whole, monkeypatch, capsys):
    program, *rest = words(command)
    assert not [word for word in rest if PART.match(word) and not (ROOT / word).exists()], "a file that is not there"
    if program == "make":
        assert not rest or rest[0] in TARGETS
    elif program.startswith(".ci/"):
        assert (ROOT / program).is_file()
    elif program.endswith("python") and (whole or rest[1:]):
        found = parsed_by(ROOT / rest[0], rest[1:], monkeypatch)
        if hasattr(found, "set"):
            for config in getattr(found, "grid", None) or [getattr(found, "config", ROOT / "configs" / "demo.yaml")]:
                check_keys(config, found.set, sweep=rest[0] == "jobs/sweep.py")
    elif program == "raw2s":
        try:
            found = command_parser(list(LISTED)).parse_args(rest)
        except SystemExit as end:
            said = capsys.readouterr().err
            assert end.code == 0 or (not whole and "arguments are required" in said), said
            return
        if hasattr(found, "set"):
            check_keys(getattr(found, "config", ROOT / "configs" / "demo.yaml"), found.set, sweep=found.command == "sweep")


def test_the_pages_have_commands_of_every_kind():
    """The pattern above finds what a reader would type."""
    programs = {words(command)[0] for _, command, _ in CASES}
    assert programs >= {"raw2s", "python", "make", ".ci/wheel", "pytest"}
    assert len(CASES) > 60
    assert {page for page, _, whole in CASES if whole} >= {"README.md", "CONTRIBUTING.md", "tutorial.md", "demo.md", "gpu.md"}


@pytest.mark.parametrize(
    "command", ["raw2s plna configs/demo.yaml", "raw2s plan configs/demo.yaml --mufu 1", "raw2s run configs/demmo.yaml",
                "raw2s run configs/demo.yaml --set labling.beams=3", "python jobs/sweep.py --confg x", "make demmo"],
)  # fmt: skip
def test_a_mistaken_command_is_seen(command, monkeypatch, capsys):
    with pytest.raises((AssertionError, ConfigError, SystemExit)):
        test_a_command_on_a_page_is_one("", command, True, monkeypatch, capsys)


def test_the_tutorial_is_what_ci_runs():
    """Every `raw2s` command of docs/tutorial.md is in .ci/wheel."""
    run = (ROOT / ".ci" / "wheel").read_text(encoding="utf-8").replace("env/bin/", "")
    said = [command for command, whole in commands(ROOT / "docs" / "tutorial.md") if whole and command.startswith("raw2s")]
    assert len(said) > 6
    assert not [command for command in said if f"\n{command}\n" not in run]


def test_workflow_and_citation_fit_their_schemas():
    """.github/workflows/ci.yml, and CITATION.cff, by the schemas that check-jsonschema brings."""
    schemas = pytest.importorskip("check_jsonschema.builtin_schemas", reason="the schemas are check-jsonschema's")
    folder = Path(schemas.__file__).parent / "vendor"
    for file, name in ((".github/workflows/ci.yml", "github-workflows"), ("CITATION.cff", "citation-file-format")):
        schema = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        text = (ROOT / file).read_text(encoding="utf-8").replace("\non:", '\n"on":')  # YAML 1.1 reads a bare on as true
        jsonschema.Draft7Validator(schema).validate(yaml.safe_load(text))


def test_what_init_says_in_the_tutorial_is_what_it_says(tmp_path, monkeypatch, capsys):
    page = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    exec(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)[0], {})
    assert main(["init", "mails.jsonl", "ann.csv", "hasty.csv", "rule.csv"]) == 0
    assert f"```\nraw2s init mails.jsonl ann.csv hasty.csv rule.csv\n```\n\n```\n{capsys.readouterr().out}```\n" in page

    config = load_config(Path("config.yaml"))
    assert not [note for note in task_of(config.task).notes if "prompts" in note], "no mail is there twice"
    asked = re.findall(r"raw2s predict mail_student --input (\S+)", page)[0]
    ids = {json.loads(line)["id"] for line in Path(asked).read_text().splitlines()}
    assert ids == {example["id"] for example in draw_halves(config.task, 1).student}, "those that a label file can name"
    line = "  - {name: asked, kind: labels, file: ask.jsonl}"
    assert f"```yaml\n{line}\n```" in page
    text = Path("config.yaml").read_text().replace("teachers:\n", f"teachers:\n{line}\n")
    assert parse_config(yaml.safe_load(text)).teachers[0].name == "asked"
