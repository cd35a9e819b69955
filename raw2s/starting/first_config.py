"""`raw2s init`: a commented config for the files a newcomer has, checked as `raw2s plan` checks it before it is written."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from raw2s.config import parse_config
from raw2s.decoding.tokens import positions_of
from raw2s.errors import ConfigError
from raw2s.models.load import load_model_config, load_tokenizer
from raw2s.pipeline.preflight import check
from raw2s.starting.columns import Columns, look_at_data
from raw2s.starting.label_columns import LabelColumns, look_at_labels
from raw2s.starting.sizes import Sizes, sizes_of
from raw2s.tasks.own_rows import METRICS
from raw2s.tasks.sources import SourceRow, read_source
from raw2s.tasks.template import filled, pieces_of

STUDENT = "tiny-llama"
SUFFIXES = (".jsonl", ".csv")
REJECTED = 0.05
"""Share of B without a label that a run tolerates by itself; as much is added to what is known to lack one."""


def write_first_config(file: Path, labels: Sequence[Path], out: Path) -> list[str]:
    """Write the config `out` for the rows of `file`, with `labels` as its teachers; returns what was found, a line each.

    Raises ConfigError, in one line and before anything is written, for what cannot be worked out.
    """
    if out.exists():
        raise ConfigError(f"{out} is there already; give another name with --out")
    if not out.parent.is_dir():
        raise ConfigError(f"{out.parent}: no such folder; make it, or give another name with --out")
    if not file.is_file() or file.suffix not in SUFFIXES:
        raise ConfigError(f"{file}: no file that ends in {' or '.join(SUFFIXES)}; name the file of your rows")
    try:
        rows = read_source("data", str(file), "")
        looked = [look_at_labels(own) for own in labels]
        columns = look_at_data(file, rows, looked)
        sizes = sizes_of(file, columns, looked)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    too_long = _too_long(rows, columns)
    text = config_text(file, looked, columns, sizes, out=out, too_long=too_long)
    check(parse_config(yaml.safe_load(text)))
    with out.open("x", encoding="utf-8") as stream:
        stream.write(text)
    return _found(columns, sizes, too_long)


def config_text(
    file: Path, labels: Sequence[LabelColumns], columns: Columns, sizes: Sizes, *, out: Path, too_long: str = ""
) -> str:
    """The YAML with its comments."""
    environment = Environment(
        loader=PackageLoader("raw2s", "starting"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["yaml"] = _yaml
    unlabeled, lacking = sizes.unlabeled, len(columns.answered) - sum(columns.answered)
    others = [name for name in METRICS[columns.form] if name != columns.metric]
    return environment.get_template("config.yaml.j2").render(
        files=[str(file), *(str(own.file) for own in labels)],
        out=out,
        name=_word(file.stem),
        data=str(file),
        columns=columns,
        sizes=sizes,
        rows=len(columns.answered),
        gaps=f", {lacking:,} of them without an answer, which are in B" if lacking else "",
        prompt=_prompt(columns),
        left_out=f"; not read: {', '.join(columns.left_out)}" if columns.left_out else "",
        only_labels=f"  # only in label files: {', '.join(columns.only_labels)}" if columns.only_labels else "  # in their order",
        metrics=", ".join(others),
        ids="the column of the whole numbers that label files name rows by" if columns.id else "rows are numbered from 0 on",
        labels=[{"name": _word(own.file.stem), "file": str(own.file)} for own in labels],
        tolerated=math.ceil(100 * (unlabeled + REJECTED)) / 100
        if unlabeled > REJECTED / 2 and unlabeled + REJECTED < 1
        else None,
        student=STUDENT,
        too_long=f"; {too_long}" if too_long else "",
        credit=f"own data, {file.name}",
    )


def _prompt(columns: Columns) -> str:
    return "".join(f"{{{name}}}\n" for name in columns.texts)


def _too_long(rows: Sequence[SourceRow], columns: Columns) -> str:
    """How many prompts the built-in student cannot read; empty where it can read all."""
    limit = positions_of(load_model_config(STUDENT))
    try:
        prompts = [filled(pieces_of(_prompt(columns)), row.values, "the prompt") for row in rows]
    except ValueError as error:
        raise ConfigError(f"{rows[0].place.partition(': row')[0]}: {error}") from None
    long = sum(len(ids) >= limit for ids in load_tokenizer(STUDENT)(prompts)["input_ids"]) if limit else 0
    return f"{long:,} texts are too long for built-in models, which read {limit} pieces: name others" if long else ""


def _found(columns: Columns, sizes: Sizes, too_long: str) -> list[str]:
    """What the config says of the files, for who has not opened it yet."""
    answers = f"{len(columns.classes)} classes" if columns.form == "classes" else "texts"
    lines = [
        f"prompt   {', '.join(columns.texts)}",
        f"answer   {columns.answer}: {answers}",
        f"rows     {sizes.teacher:,} in A, {sizes.student:,} in B, {sizes.validation:,} in validation, {sizes.test:,} in test",
    ]
    if columns.only_labels:
        lines.append(f"warning: only label files hold the classes {', '.join(columns.only_labels)}")
    if too_long:
        lines.append(f"warning: {too_long}")
    return lines


def _word(stem: str) -> str:
    """A file's name as that of a run or a teacher."""
    return re.sub(r"\W+", "_", stem).strip("_") or "own"


def _yaml(value: Any) -> str:
    """A value in one line of YAML."""
    if isinstance(value, str) and "\n" in value:
        return yaml.safe_dump(value, default_style='"', width=math.inf, allow_unicode=True).strip()
    return yaml.safe_dump(value, default_flow_style=True, width=math.inf, allow_unicode=True).removesuffix("\n...\n").strip()
