"""The stage between labels and student where a crowd method combines the teachers' votes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from raw2s.labels.crowd import CrowdMethod, Vote, combine_votes
from raw2s.labels.forms import logit_rows
from raw2s.labels.table import CLASSIFICATION, read_table, write_table
from raw2s.pipeline.answer_stages import Given
from raw2s.pipeline.data_stages import Examples
from raw2s.pipeline.labeling_stages import Label
from raw2s.pipeline.stage import Metrics, Stage, Work
from raw2s.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Combine(Stage):
    """The votes of all teachers, a file's annotators each for itself, combined by a crowd method into a table of one teacher."""

    kind: ClassVar[str] = "combine"
    split: Examples
    label: Label
    given: Mapping[str, Given]
    """The teachers without a model, by name, whose annotators vote one by one."""
    task: Task
    method: CrowdMethod
    seed: int

    TABLE: ClassVar[str] = "labels.parquet"

    def read(self, folder: Path) -> tuple[list[Any], list[str]]:
        """The rows, and the name of their one teacher: the method's."""
        return read_table(folder / self.TABLE)

    def run(self, work: Work) -> Metrics:
        table, names = self.label.read(work.folder(self.label))
        kept = {row["id"] for row in table}
        votes: list[Vote] = []
        for place, name in enumerate(names):
            if name in self.given:
                given = self.given[name]
                votes += [vote for vote in given.votes(work.folder(given)) if vote[0] in kept]
            else:
                votes += [(row["id"], name, int(np.argmax(row["logits"][place]))) for row in table]
        combined = combine_votes(votes, self.method, len(self.task.classes), self.seed)
        rows = logit_rows({row["id"]: combined[row["id"]] for row in table})
        one_teacher = ({"id": row["id"], "logits": [row["logits"]]} for row in rows)
        write_table(work.out / self.TABLE, one_teacher, CLASSIFICATION, [self.method])
        gold = {example["id"]: example["gold"] for example in self.split.read(work.folder(self.split), "student")}
        right = [self.task.classes[int(np.argmax(own))] == gold[i] for i, own in combined.items() if gold[i] is not None]
        return {
            "items": len(rows),
            "votes": len(votes),
            "workers": len({worker for _, worker, _ in votes}),
            **({"accuracy_on_b": float(np.mean(right))} if right else {}),
        }
