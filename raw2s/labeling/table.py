"""The weak-label table: raw, free of weights, so that no change of weights ever labels again.

Generation: one row per prompt and candidate text. Teachers are in the order of the table's `teachers` metadata.

    id, candidate, text
    rank      list<int>          (teachers)         place in that teacher's own beams; -1 where it did not produce the text
    tokens    list<int>          (teachers)         pieces of the text, end marker included, in that teacher's tokenizer
    words     list<list<float>>  (teachers, words+1) word log-probabilities, the end marker last; their sum is log P(text)

Classification: one row per prompt: id, logits list<list<float>> (teachers, classes).
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raw2s.labeling.actors import BeamActor, ClassActor, Pool, Progress, ScoreActor, by_id, dataset_of, prompt_units, through

GENERATION = pa.schema(
    [
        ("id", pa.int64()),
        ("candidate", pa.int32()),
        ("text", pa.string()),
        ("rank", pa.list_(pa.int32())),
        ("tokens", pa.list_(pa.int32())),
        ("words", pa.list_(pa.list_(pa.float64()))),
    ]
)
CLASSIFICATION = pa.schema([("id", pa.int64()), ("logits", pa.list_(pa.list_(pa.float32())))])

Row = dict[str, Any]


def label_generation(
    ids: list[int],
    prompts: list[str],
    teachers: list[Pool],
    *,
    beams: int,
    max_new_tokens: int,
    batch_size: int,
    progress: Progress,
) -> list[Row]:
    """Top-M beams of every teacher, then every teacher's score of all M x N candidates (section 4.1, Eq. 6).

    Two streaming passes with the candidates between them, for scoring needs them all. Rows are ordered by the
    prompts' order, then by candidate.
    """
    dataset = dataset_of(prompt_units(ids, prompts, batch_size))
    for teacher in teachers:
        dataset = through(dataset, BeamActor, teacher, beams=beams, max_new_tokens=max_new_tokens, progress=progress)
    units = dataset.take_all()
    found = {teacher.name: by_id(units, f"beams:{teacher.name}") for teacher in teachers}
    texts = {i: _merged([[c["text"] for c in found[t.name][i]] for t in teachers]) for i in ids}
    scored = score_candidates(ids, prompts, texts, teachers, batch_size=batch_size, progress=progress)
    rows = []
    for i in ids:
        for index, text in enumerate(texts[i]):
            ranks = [next((r for r, c in enumerate(found[t.name][i]) if c["text"] == text), -1) for t in teachers]
            scores = [scored[t.name][i][index] for t in teachers]
            rows.append(
                {
                    "id": i,
                    "candidate": index,
                    "text": text,
                    "rank": ranks,
                    "tokens": [s["tokens"] for s in scores],
                    "words": [s["words"] for s in scores],
                }
            )
    return rows


def score_candidates(
    ids: list[int], prompts: list[str], texts: dict[int, list[str]], teachers: list[Pool], *, batch_size: int, progress: Progress
) -> dict[str, dict[int, list[Row]]]:
    """Per teacher and id, for each of the id's texts: {"words": word log-probabilities, "tokens": count}."""
    units = prompt_units(ids, prompts, batch_size)
    dataset = dataset_of([unit | {"candidates": json.dumps([texts[i] for i in unit["ids"]])} for unit in units])
    for teacher in teachers:
        dataset = through(dataset, ScoreActor, teacher, progress=progress)
    scored = dataset.take_all()
    return {teacher.name: by_id(scored, f"scores:{teacher.name}") for teacher in teachers}


def label_classes(
    ids: list[int], prompts: list[str], teachers: list[Pool], classes: tuple[str, ...], *, batch_size: int, progress: Progress
) -> list[Row]:
    """Every teacher's class logits for every prompt, in the prompts' order."""
    dataset = dataset_of(prompt_units(ids, prompts, batch_size))
    for teacher in teachers:
        dataset = through(dataset, ClassActor, teacher, classes=classes, progress=progress)
    units = dataset.take_all()
    found = [by_id(units, f"logits:{teacher.name}") for teacher in teachers]
    return [{"id": i, "logits": [logits[i] for logits in found]} for i in ids]


def write_table(file: Path, rows: list[Row], schema: pa.Schema, teachers: list[str]) -> None:
    pq.write_table(pa.Table.from_pylist(rows, schema=schema.with_metadata({"teachers": json.dumps(teachers)})), file)


def read_table(file: Path) -> tuple[list[Row], list[str]]:
    """The rows, and the teachers' names in the order of the rows' lists."""
    table = pq.read_table(file)
    return table.to_pylist(), json.loads(table.schema.metadata[b"teachers"])


def _merged(lists: list[list[str]]) -> list[str]:
    """All texts once, in the order of first appearance: teacher by teacher, each best first."""
    return list(dict.fromkeys(text for texts in lists for text in texts))
