"""A pass of one teacher over its prompts: units of work as a Ray Data actor pool, and every unit's answers as a file.

A unit is a fixed list of prompts, one row of the dataset and one call of the model. Units are cut once, by `prompts.prompt_units`, so
a result never depends on how Ray Data groups rows or on which actor takes them. The actor itself leaves a unit's answers as
one Parquet file, there whole or not at all, under a name made from the unit's content: whatever dies - an actor, a node, the
driver - a unit is either finished or does not exist, and the next pass over the same folder does only what is missing.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
from ray.data import ActorPoolStrategy

from raw2s.imports import bulk_imports
from raw2s.labeling.prompts import Teacher, Unit, answer
from raw2s.models import Precision
from raw2s.section import Actors
from raw2s.storage import Place, place
from raw2s.storage.files import AT_ONCE, answering, exists, filesystem, read, remove, write


@dataclass(frozen=True, kw_only=True)
class Pool:
    """One model, how it is asked, and its actors; `model` is a folder or a hub id, `chat` as `Task` has it."""

    name: str
    model: str
    actors: Actors
    precision: Precision = "auto"
    chat: bool = False
    converted: Path | None = None
    """Its folder for CTranslate2, which then finds its beams."""
    by_name: bool = False
    """Whether it has no classifier's head and says how likely a class is by its name."""


@dataclass(frozen=True)
class PromptProgress:
    """Counts finished prompts on a `Board` actor."""

    board: Any
    name: str
    total: int

    def add(self, prompts: int, note: str) -> None:
        if self.board is not None:
            self.board.advance.remote(self.name, prompts, self.total, note)


@dataclass(frozen=True)
class Answered:
    """What a pass leaves: `answers` in the units' order, the prompts it could not answer with the reason, the actors' time."""

    answers: pa.Table
    rejected: dict[int, str]
    seconds: float
    """Summed over the actors, loading not counted; units found finished count with the time they once took."""

    @property
    def prompts_per_second(self) -> float:
        """Of one actor."""
        return (len(self.answers) + len(self.rejected)) / self.seconds if self.seconds else 0.0


def run_pass(
    make: Callable[[], Teacher], units: list[Unit], pool: Pool, *, schema: pa.Schema, folder: Place, progress: PromptProgress
) -> Answered:
    """Let `make()`, called once in every actor of `pool`, answer the units that `folder` does not hold yet.

    `schema` describes an answer and begins with `raw2s.labels.table.ANSWER`. A prompt on which the teacher raises ValueError is rejected with
    that message. Every id comes back once, answered or rejected.
    """
    files = [folder / f"{unit_name(unit)}.parquet" for unit in units]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        finished = list(threads.map(_readable, files))
    missing = [(unit, file) for unit, file, there in zip(units, files, finished, strict=True) if not there]
    found = sum(len(u["ids"]) for u in units) - sum(len(u["ids"]) for u, _ in missing)
    progress.add(found, f"{pool.name}: {found} found" if found else pool.name)
    if missing:
        rows = [{"unit": json.dumps(unit), "file": str(file)} for unit, file in missing]
        actors = pool.actors
        low, high = actors.replicas
        # One block a unit, so that every replica finds work; the answers are in the files, only their names come back.
        ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            UnitActor,  # type: ignore[arg-type]  # Ray types functions only
            fn_constructor_kwargs={"make": ray.cloudpickle.dumps(make), "schema": schema, "progress": progress, "note": pool.name},
            num_cpus=actors.num_cpus, num_gpus=actors.num_gpus, resources=actors.resources or None,
            label_selector=actors.label_selector or None, compute=ActorPoolStrategy(min_size=low, max_size=high),
        ).take_all()  # fmt: skip
    return gather(units, files, schema)


class UnitActor:
    """The Ray Data actor: a teacher made once, and a file for every unit it answers."""

    def __init__(self, make: bytes, schema: pa.Schema, progress: PromptProgress, note: str) -> None:
        with bulk_imports():  # unpickling `make` imports what the teacher needs
            from raw2s.forking.threads import use_own_threads  # noqa: PLC0415

            use_own_threads()
            self.teacher: Teacher = ray.cloudpickle.loads(make)()
        self.schema, self.progress, self.note = schema, progress, note

    def __call__(self, row: dict[str, str]) -> dict[str, str]:
        unit, file = json.loads(row["unit"]), place(row["file"])
        if not exists(file):  # else an actor was lost between leaving the file and saying so
            start = time.perf_counter()
            answers = answer(self.teacher, unit)
            seconds = str(time.perf_counter() - start)
            table = pa.Table.from_pylist(answers, schema=self.schema.with_metadata({"seconds": seconds}))
            content = pa.BufferOutputStream()
            pq.write_table(table, content)
            write(file, content.getvalue().to_pybytes())
        self.progress.add(len(unit["ids"]), self.note)
        return {"file": row["file"]}


def gather(units: list[Unit], files: Sequence[Place], schema: pa.Schema) -> Answered:
    """All units' files as one table. Raises RuntimeError unless every id is answered or rejected exactly once."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        tables = list(threads.map(_table, files))
    seconds = sum(float(table.schema.metadata[b"seconds"]) for table in tables)
    for unit, file, table in zip(units, files, tables, strict=True):
        if table["id"].to_pylist() != unit["ids"]:
            raise RuntimeError(f"{file}: does not hold its unit's ids once each; delete it and run again")
    table = pa.concat_tables([schema.empty_table(), *(table.replace_schema_metadata() for table in tables)])
    rejected = table.filter(table["reason"].is_valid()).select(["id", "reason"]).to_pylist()
    answers = table.filter(table["reason"].is_null()).drop_columns(["reason"])
    return Answered(answers, {row["id"]: row["reason"] for row in rejected}, seconds)


def unit_name(unit: Unit) -> str:
    """16 hex digits of the unit's content."""
    return hashlib.sha256(json.dumps(unit, sort_keys=True).encode()).hexdigest()[:16]


def _table(file: Place) -> pa.Table:
    system, path = filesystem(file)
    return pq.read_table(path, filesystem=system)


def _readable(file: Place) -> bool:
    """Whether a finished unit is there; one that the file system cut short is none.

    Raises StageFailed, or OSError of a disk, where the storage does not answer: that says nothing of the unit.
    """
    with answering(file):
        content = read(file)
    if content is None:
        return False
    try:
        pq.read_metadata(pa.BufferReader(content))
    except (OSError, pa.ArrowInvalid):  # a garbled footer is the former
        remove(file)
        return False
    return True
