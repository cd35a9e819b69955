"""The label table as a `datasets` data set, in the columns that TRL and others train on.

https://huggingface.co/docs/trl/dataset_formats: prompt-completion, messages (conversational), preference with an explicit prompt.
"""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from raw2s.labels.table import CandidateRow, ClassRow
from raw2s.labels.targets import candidate_score

Format = Literal["text", "messages", "preference"]

_TEACHER = {"teacher": "string", "weight": "float64", "logprob": "float64"}
COLUMNS: dict[Format, dict[str, Any]] = {
    "text": {"id": "int64", "prompt": "string", "completion": "string", **_TEACHER},
    "messages": {"id": "int64", "messages": [{"role": "string", "content": "string"}], **_TEACHER},
    "preference": {
        "id": "int64",
        "prompt": "string",
        "chosen": "string",
        "rejected": "string",
        "score_chosen": "float64",
        "score_rejected": "float64",
    },
}
"""Names and types, as `datasets.Features` has them; docs/label_table.md says what each holds."""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """A label table with what it takes to read it."""

    prompts: Mapping[int, str]
    table: Sequence[Any]
    """`CandidateRow`s or `ClassRow`s, in the order of the ids."""
    teachers: Sequence[str]
    """Their names, in the order of the table's lists."""
    classes: Sequence[str]
    """Their names in the order of the logits; empty where labels are texts."""


def export_rows(labels: Labels, form: Format) -> list[dict[str, Any]]:
    """The rows of `COLUMNS[form]`.

    `text` and `messages`: a row per prompt and teacher that labeled it, its first choice; the weights of a prompt sum to one.
    `preference`: a row per prompt, the candidates of the highest and the lowest mean weighted score (Eq. 10, 11, with equal
    weights); a prompt whose best equals its worst, or that no teacher scored, has none. Raises ValueError for pairs of classes.
    """
    if form == "preference":
        if labels.classes:
            raise ValueError("labels that are classes give no pairs; export --format text or messages")
        return list(_pairs(labels))
    rows = []
    for i, said in _first_choices(labels):
        for teacher, completion, logprob in said:
            given = {"teacher": labels.teachers[teacher], "weight": 1 / len(said), "logprob": logprob}
            prompt = labels.prompts[i]
            turns = [("user", prompt.strip()), ("assistant", completion)]
            text: dict[str, Any] = {"prompt": prompt, "completion": completion}
            if form == "messages":
                text = {"messages": [{"role": role, "content": content} for role, content in turns]}
            rows.append({"id": i, **text, **given})
    return rows


def write_dataset(labels: Labels, form: Format, out: Path) -> int:
    """`out` as `datasets.load_from_disk` reads it, and the same rows beside it as `labels.jsonl`; returns their number.

    Raises ValueError where `out` is there and not empty, or nothing can be exported.
    """
    from datasets import Dataset, Features, Value  # takes seconds  # noqa: PLC0415

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already; give another folder with --to")
    rows = export_rows(labels, form)
    if not rows:
        raise ValueError(f"the label table gives no row of format {form}; choose another --format")
    turn = {"role": Value("string"), "content": Value("string")}
    features = Features({name: Value(kind) if isinstance(kind, str) else [turn] for name, kind in COLUMNS[form].items()})
    Dataset.from_list(rows, features=features).save_to_disk(str(out))
    (out / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return len(rows)


def _first_choices(labels: Labels) -> Iterator[tuple[int, list[tuple[int, str, float | None]]]]:
    """Of every prompt (teacher's index, text, its log-probability by that teacher or None), teachers without a label left out."""
    if labels.classes:
        for row in labels.table:
            yield row["id"], _classes_said(row, labels.classes)
        return
    for i, candidates in itertools.groupby(labels.table, key=lambda row: row["id"]):
        said = [(teacher, row) for row in candidates for teacher, rank in enumerate(row["rank"]) if rank == 0]
        yield i, [(teacher, row["text"], _summed(row["words"][teacher])) for teacher, row in sorted(said, key=lambda s: s[0])]


def _classes_said(row: ClassRow, classes: Sequence[str]) -> list[tuple[int, str, float | None]]:
    said: list[tuple[int, str, float | None]] = []
    for teacher, logits in enumerate(row["logits"]):
        if logits is not None:
            logit_K = np.array(logits, dtype=np.float64)
            best = int(logit_K.argmax())
            said.append((teacher, classes[best], float(logit_K[best] - np.logaddexp.reduce(logit_K))))
    return said


def _summed(words: Sequence[float] | None) -> float | None:
    return None if words is None else math.fsum(words)


def _pairs(labels: Labels) -> Iterator[dict[str, Any]]:
    for i, candidates in itertools.groupby(labels.table, key=lambda row: row["id"]):
        scored = [(_mean_score(row), row) for row in candidates if any(words is not None for words in row["words"])]
        if not scored:
            continue
        best, worst = max(scored, key=lambda s: (s[0], -s[1]["candidate"])), min(scored, key=lambda s: (s[0], s[1]["candidate"]))
        if best[0] > worst[0]:
            pair = {"prompt": labels.prompts[i], "chosen": best[1]["text"], "rejected": worst[1]["text"]}
            yield {"id": i, **pair, "score_chosen": best[0], "score_rejected": worst[0]}


def _mean_score(row: CandidateRow) -> float:
    """The mean over the teachers that score of the mean log-probability of a piece (Eq. 10)."""
    scoring = sum(words is not None for words in row["words"])
    return candidate_score(row["words"], row["tokens"], [1 / scoring] * len(row["words"]), "mean_logprob")
