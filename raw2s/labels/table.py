"""The weak-label table: raw, free of weights, so that no change of weights ever labels again; and the answers it is made of.

Generation: one row per prompt and candidate text. Teachers are in the order of the table's `teachers` metadata.

    id, candidate, text
    rank      list<int>          (teachers)         place in that teacher's own answers; -1 where it did not produce the text
    tokens    list<int>          (teachers)         pieces of the text, end marker included, in that teacher's tokenizer
    words     list<list<float>>  (teachers, words+1) word log-probabilities, the end marker last; their sum is log P(text)

`tokens` and `words` are null for a teacher that is a file of labels: it scores nothing.
Classification: one row per prompt: id, logits list<list<float>> (teachers, classes), null where a file has no label.

A teacher's own answers, one row per prompt it answered: `BEAMS` (best first) or `CLASSES`; `SCORES` lie beside the texts that
were asked for, and `DOUBTS` (`raw2s.losses.doubt`) at every token of a model's own answer; null without a Dirichlet. `DROPOUT_DOUBTS` are those
of a model asked with dropout on, of a classifier one a prompt. What it could not answer is in `REJECTS`, and so is, without a teacher, what
nobody answered. `VOTES` are the single annotators' classes where one teacher is a file of several.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from raw2s.losses.doubt import DROPOUT_MEASURES, MEASURES

Answer = dict[str, Any]
"""One row of a teacher's own answers: the columns of `BEAMS`, `SCORES` or `CLASSES`."""


class CandidateRow(TypedDict):
    """One prompt's candidate text: a row of the table for text. Lists are in the order of the table's teachers."""

    id: int
    candidate: int
    text: str
    rank: list[int]
    tokens: list[int | None]
    words: list[list[float] | None]


class ClassRow(TypedDict):
    """One prompt's class logits, a teacher each: a row of the table for classes."""

    id: int
    logits: list[list[float] | None]


class ScoreRow(TypedDict):
    """What one teacher says of one text: word log-probabilities, the end marker last, and its number of pieces."""

    words: list[float]
    tokens: int


ANSWER = [("id", pa.int64()), ("reason", pa.string())]
"""What every answer has: the prompt's id and, where the teacher could not answer, why."""
_WORDS = pa.list_(pa.list_(pa.float64()))
GENERATION = pa.schema(
    [
        ("id", pa.int64()),
        ("candidate", pa.int32()),
        ("text", pa.string()),
        ("rank", pa.list_(pa.int32())),
        ("tokens", pa.list_(pa.int32())),
        ("words", _WORDS),
    ]
)
CLASSIFICATION = pa.schema([("id", pa.int64()), ("logits", pa.list_(pa.list_(pa.float32())))])

BEAMS = pa.schema(
    [
        *ANSWER,
        ("texts", pa.list_(pa.string())),
        ("logprobs", pa.list_(pa.float64())),
        ("tokens", pa.list_(pa.int32())),
        ("ended", pa.list_(pa.bool_())),
    ]
)
SCORES = pa.schema([*ANSWER, ("words", _WORDS), ("tokens", pa.list_(pa.int32()))])
CLASSES = pa.schema([*ANSWER, ("logits", pa.list_(pa.float32()))])
DOUBTS = pa.schema([*ANSWER, *((name, pa.list_(pa.float64())) for name in MEASURES)])
DROPOUT_DOUBTS = pa.schema([*ANSWER, *((name, pa.list_(pa.float64())) for name in DROPOUT_MEASURES)])
REJECTS = pa.schema([("id", pa.int64()), ("teacher", pa.string()), ("reason", pa.string())])

VOTES = pa.schema([("id", pa.int64()), ("worker", pa.string()), ("label", pa.int32())])

ROWS_AT_ONCE = 10_000
"""How many rows exist as Python objects while a table is written."""


def merged_texts(lists: Sequence[Sequence[str]]) -> list[str]:
    """All texts once, in the order of first appearance: teacher by teacher, each best first."""
    return list(dict.fromkeys(text for texts in lists for text in texts))


def generation_rows(
    candidates: Mapping[int, list[str]],
    answers: Sequence[Mapping[int, list[str]]],
    scores: Sequence[Callable[[int], list[ScoreRow]] | None],
) -> Iterable[CandidateRow]:
    """The table's rows, ids in the order of `candidates`.

    `answers` holds each teacher's own texts by id, best first. `scores` gives each teacher's {"words", "tokens"} of an id's
    candidates; None for a teacher that scores nothing.
    """
    for i, texts in candidates.items():
        ranks = [{text: rank for rank, text in reversed(list(enumerate(own.get(i, []))))} for own in answers]
        scored = [None if score is None else score(i) for score in scores]
        for index, text in enumerate(texts):
            yield {
                "id": i,
                "candidate": index,
                "text": text,
                "rank": [rank.get(text, -1) for rank in ranks],
                "tokens": [None if rows is None else rows[index]["tokens"] for rows in scored],
                "words": [None if rows is None else rows[index]["words"] for rows in scored],
            }


def row_by_id(table: pa.Table) -> Callable[[int], Answer]:
    """Looks up one row of a table; the others stay in Arrow's memory."""
    table = table.combine_chunks()
    position = {i: row for row, i in enumerate(table["id"].to_pylist())}
    return lambda i: table.slice(position[i], 1).to_pylist()[0]


def in_order(table: pa.Table, ids: Iterable[int]) -> pa.Table:
    """The rows of `table` in the order of `ids`; ids that it lacks are left out."""
    position = {i: row for row, i in enumerate(table["id"].to_pylist())}
    return table.take(pa.array([position[i] for i in ids if i in position], pa.int64()))  # typed: there may be none


def write_table(file: Path, rows: Iterable[Mapping[str, Any]], schema: pa.Schema, teachers: Sequence[str] | None = None) -> int:
    """Write the rows as they come, with the teachers' names in the metadata; returns how many there were."""
    if teachers is not None:
        schema = schema.with_metadata({"teachers": json.dumps(teachers)})
    remaining, count = iter(rows), 0
    with pq.ParquetWriter(file, schema) as writer:
        while chunk := list(itertools.islice(remaining, ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(chunk, schema=schema))
            count += len(chunk)
    return count


def read_table(file: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows, and the teachers' names in the order of the rows' lists."""
    table = pq.read_table(file)
    return table.to_pylist(), json.loads(table.schema.metadata[b"teachers"])
