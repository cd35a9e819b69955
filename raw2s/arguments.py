"""What may follow `raw2s` on a command line, and its help, in sections."""

import argparse
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from pathlib import Path

from raw2s import __version__
from raw2s.config import SweepConfig, describe_keys
from raw2s.labels.export import COLUMNS
from raw2s.storage import Place, place

SECTIONS: dict[str, dict[str, str]] = {
    "to start": {
        "demo": "run the built-in demo: SLURP slot filling with three small teachers; some minutes, into ./runs",
        "init": "write a commented config for a file of rows, and label files",
        "export-items": "write the items that are to be labeled, B, as a label file to fill in",
    },
    "before a run": {
        "plan": "list a config's stages, which are finished, and what each takes: memory, work, disk, GPU-hours",
        "check": "ask before training whether several teachers should help: how good they are on devel, and how alike",
    },
    "to run": {
        "run": "run a config's pipeline",
        "label": "run a config's pipeline up to the teachers' label table",
        "sweep": "search with Ray Tune",
    },
    "while it runs": {
        "status": "say how far a run is, from another terminal; exit status 0: done, 3: running, 4: failed or killed",
    },
    "after a run": {
        "report": "print a finished run's table again",
        "compare": "set several finished runs side by side: what differs in their configs, their scores, paired tests",
        "labels": "write a finished label table as a data set for other trainers",
        "export": "make a folder of a finished run's student, with all it takes to ask it",
        "predict": "answer the rows of a file, with probabilities and doubt",
        "publish": "upload such a folder to the Hugging Face hub",
        "store": "say what lies in a storage and what no run uses, check it, delete that",
    },
}
"""Every command with what it does; those that list what a config can name stand below them."""


def command_parser(listed: Sequence[str]) -> argparse.ArgumentParser:
    """`raw2s`; each of `listed`, such as tasks, becomes a command that lists what a config can name."""
    sections = SECTIONS | {"what there is": {name: f"list the {name} that a config can name" for name in listed}}
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="raw2s",
        usage="raw2s [-h] [--version] COMMAND ...",
        description="Bayesian WeakS-to-Strong on a Ray cluster.",
        epilog=_listing(sections),
        formatter_class=plain,
    )
    parser.add_argument("--version", action="version", version=f"raw2s {__version__}")
    commands = parser.add_subparsers(
        prog="raw2s", dest="command", metavar="COMMAND", required=True, help="raw2s COMMAND --help says more"
    )
    for own in sections.values():
        for name, text in own.items():
            commands.add_parser(name, description=text, formatter_class=plain)
    choices = commands.choices
    _add_starting(choices)
    _add_running(choices)
    _add_looking(choices)
    labels = choices["labels"].add_subparsers(dest="action", required=True).add_parser("export", help="as TRL and others read it")
    labels.add_argument("folder", type=_place, help="a label artifact, as `raw2s label` prints it, or <storage>/<name>")
    labels.add_argument("--format", choices=list(COLUMNS), default="text", help="the columns: docs/label_table.md")
    labels.add_argument("--to", type=Path, metavar="OUT", help="a new folder; by default labels-FORMAT here")
    _add_use(choices)
    store = choices["store"]
    store.add_argument("storage", type=_place, help="as in a config: a folder, or a URI such as s3://bucket/runs")
    store.add_argument("--verify", action="store_true", help="check every file of every artifact against its sum")
    store.add_argument("--delete", action="store_true", help="delete what no run uses; without it that is only listed")
    return parser


def _place(named: str) -> Place:
    try:
        return place(named)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def with_config(parser: argparse.ArgumentParser) -> None:
    """What every command that reads a run config has: `--set`, and the keys in its help."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="put a value over the config; may be repeated"
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = run_keys()


def sweep_keys() -> str:
    """What a sweep's file may hold beside a run config, for its help."""
    lines = [*describe_keys(SweepConfig, "sweep."), "any other key may be a distribution: docs/sweeps.md"]
    return "\n".join(["keys of a sweep, with their defaults:", *(f"  {line}" for line in lines), "", run_keys()])


@cache
def run_keys() -> str:
    """The keys of a config, a section for each of its own."""
    text = "keys of a config, with their defaults:"
    for name, lines in groupby(describe_keys(), _section):
        own = list(lines)
        heads = [line for line in own if line.startswith(f"{name}: ")] or [f"{name}:" if name else "the run:"]
        text += "\n\n" + "\n".join([*heads, *(f"  {line}" for line in own if line not in heads)])
    return text


def _section(line: str) -> str:
    """The config's section that a line of `describe_keys` is about; empty for a key of its top."""
    key = line.partition(" [")[0].partition(": ")[0]
    return "" if "." not in key and line.startswith(f"{key} [") else key.partition(".")[0]


def _listing(sections: dict[str, dict[str, str]]) -> str:
    width = max(len(name) for own in sections.values() for name in own) + 2
    return "\n\n".join(
        "\n".join([f"{title}:", *(f"  {name:<{width}}{text}" for name, text in own.items())]) for title, own in sections.items()
    )


def _add_starting(choices: dict[str, argparse.ArgumentParser]) -> None:
    with_config(choices["demo"])
    init = choices["init"]
    init.add_argument(
        "file", type=Path, help="your rows: .jsonl, or .csv with a header line; a text, and answers for some of them"
    )
    init.add_argument(
        "labels", type=Path, nargs="*", help="label files of people or rules (docs/labeling.md), which become teachers"
    )
    init.add_argument(
        "--out", type=Path, default=Path("config.yaml"), metavar="CONFIG", help="a new file; by default config.yaml"
    )
    items = choices["export-items"]
    items.add_argument("config", type=Path)
    items.add_argument("file", type=Path, help="a new .jsonl or .csv file")
    with_config(items)


def _add_running(choices: dict[str, argparse.ArgumentParser]) -> None:
    for name in ("run", "label", "check", "plan", "sweep"):
        choices[name].add_argument("config", type=Path)
        with_config(choices[name])
    choices["sweep"].epilog = sweep_keys()
    plan = choices["plan"].add_argument_group("what it counts with")
    plan.add_argument("--gpu", default="H100", metavar="NAME", help="the card of stages on a GPU (default H100)")
    plan.add_argument("--memory", metavar="SIZE", help="of the device, such as 80GiB, in place of that card's; of CPU stages too")
    plan.add_argument(
        "--mfu",
        type=float,
        default=0.4,
        help="share of the card's peak that hours are counted with; of its bandwidth in beams (0.4)",
    )
    choices["plan"].add_argument("--json", action="store_true", help="print the figures alone, as JSON, in bytes")


def _add_looking(choices: dict[str, argparse.ArgumentParser]) -> None:
    """What looks at runs, and changes nothing."""
    status = choices["status"]
    status.add_argument("run", type=_place, help="<storage>/<name>, or the run's config")
    status.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="with a config: what the run was given")
    status.add_argument(
        "--watch", type=float, nargs="?", const=2.0, metavar="SECONDS", help="look again every so often (2 s), until it ends"
    )
    status.add_argument("--models", action="store_true", help="list the folders of its models too")
    choices["report"].add_argument("run", type=_place, help="<storage>/<name>")
    compare = choices["compare"]
    compare.add_argument("runs", type=_place, nargs="+", metavar="run", help="<storage>/<name>, two or more")
    compare.add_argument(
        "--out", type=Path, default=Path("comparison"), metavar="FOLDER", help="of report.html; by default comparison"
    )


def _add_use(choices: dict[str, argparse.ArgumentParser]) -> None:
    """What is done with a trained student."""
    export = choices["export"]
    export.add_argument("run", type=_place, help="<storage>/<name>")
    export.add_argument("student", nargs="?", help="its stage, such as student/0-bayesian; @2 after it is that of seed 2")
    export.add_argument("folder", type=Path, help="a new folder")
    predict = choices["predict"]
    predict.add_argument("model", help="a folder that `raw2s export` made, or a hub id of one")
    files = predict.add_argument_group("files")
    files.add_argument("--input", type=Path, required=True, metavar="FILE", help="rows: .jsonl, .csv, or .txt, a text a line")
    files.add_argument("--output", type=Path, required=True, metavar="FILE", help="the answers, a JSON line a row")
    doubt = predict.add_argument_group("where it doubts")
    doubt.add_argument(
        "--accuracy", type=float, metavar="A", help="abstain where devel says that it takes to be right this often"
    )
    doubt.add_argument("--ask", type=int, metavar="N", help="write the N most doubtful rows as a label file to fill in")
    doubt.add_argument("--ask-file", type=Path, metavar="FILE", help=".jsonl or .csv; by default ask.jsonl beside the output")
    large = predict.add_argument_group("large files")
    large.add_argument("--workers", type=int, metavar="N", help="spread a large file over N actors of Ray Data")
    publish = choices["publish"]
    publish.add_argument("folder", type=Path)
    publish.add_argument("repository", help="org/name")
