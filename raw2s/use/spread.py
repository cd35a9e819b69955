"""A large file over Ray Data: every actor holds the student and reads its chunks of the file itself. The caller starts Ray."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import ray
import ray.data
from ray.data import ActorPoolStrategy

from raw2s.forking.threads import use_own_threads
from raw2s.models.load import quiet_transformers
from raw2s.use.predict import AnsweredRow, answer_chunk
from raw2s.use.rows import Chunk, Table
from raw2s.use.student import Student


class ChunkActor:
    """The Ray Data actor: the student loaded once, and a chunk's answers as JSON, for their fields differ from row to row."""

    def __init__(self, source: str, table: Table) -> None:
        use_own_threads()
        quiet_transformers()
        self.student, self.table = Student.load(source), table

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        return {"answered": json.dumps(answer_chunk(self.student, self.table, Chunk(**row)))}


def answer_spread(source: str, table: Table, workers: int) -> Iterator[list[AnsweredRow]]:
    """The chunks of the file in order, answered by `workers` actors, each with a GPU where the cluster has some.

    Every node must see the file and the student's folder under the paths given here.
    """
    chunks = [asdict(chunk) for chunk in table.chunks()]
    if not chunks:
        return
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    answered = ray.data.from_items(chunks, override_num_blocks=len(chunks)).map(
        ChunkActor,  # type: ignore[arg-type]  # Ray types functions only
        fn_constructor_kwargs={"source": source, "table": table},
        num_cpus=1,
        num_gpus=1 if ray.cluster_resources().get("GPU") else 0,
        compute=ActorPoolStrategy(size=workers),
    )
    for row in answered.iter_rows():
        yield json.loads(row["answered"])
