"""Which rows to ask a human about next: those whose answers are least probable, as a label file without labels."""

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raw2s.form import FormName
from raw2s.labels.to_fill_in import check_suffix, write_to_fill_in


@dataclass(kw_only=True)
class MostDoubtful:
    """Sees all answered rows and keeps `count` of them, of rows that ask the same the first."""

    count: int
    file: Path
    """Where they are written: .jsonl or .csv."""
    kept: list[tuple[float, int, Mapping[str, Any]]] = field(default_factory=list)
    prompts: set[str] = field(default_factory=set)
    """Of those kept."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"{self.count} rows to ask about are none; ask for 1 or more")
        check_suffix(self.file)

    def see(self, row: Mapping[str, Any]) -> None:
        """A row as `predict.answer_chunk` gives it. Without an answer, or an id that a label file could name, it is not asked about."""
        if "error" in row or row["id"] is None or row["prompt"] in self.prompts:
            return
        self.prompts.add(row["prompt"])
        logprob = row.get("logprob", math.log(max(row["probability"], math.ulp(0.0))))
        heapq.heappush(self.kept, (-logprob, -row["row"], row))
        if len(self.kept) > self.count:
            self.prompts.remove(heapq.heappop(self.kept)[2]["prompt"])  # asked again, it is as probable, and leaves again

    def write(self, form: FormName) -> int:
        """The most doubtful first, the label empty, what the student reads and says beside it; returns how many they are."""
        rows: dict[int, dict[str, Any]] = {}
        for _, _, row in sorted(self.kept, key=lambda kept: kept[:2], reverse=True):
            rows.setdefault(row["id"], {name: row[name] for name in ("prompt", "answer", "probability")})
        write_to_fill_in(self.file, form, rows.items())
        return len(rows)
