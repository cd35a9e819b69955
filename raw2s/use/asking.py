"""Which rows to ask a human about next: those whose answers are least probable, as a label file without labels."""

import csv
import heapq
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raw2s.form import FormName

SUFFIXES = (".jsonl", ".csv")


@dataclass(kw_only=True)
class MostDoubtful:
    """Sees all answered rows and keeps `count` of them."""

    count: int
    file: Path
    """Where they are written: .jsonl or .csv."""
    kept: list[tuple[float, int, Mapping[str, Any]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"{self.count} rows to ask about are none; ask for 1 or more")
        if self.file.suffix not in SUFFIXES:
            raise ValueError(f"{self.file}: its name ends in none of {', '.join(SUFFIXES)}, which label files do; rename it")

    def see(self, row: Mapping[str, Any]) -> None:
        """A row as `predict.answer_chunk` gives it. Without an answer, or an id that a label file could name, it is not asked about."""
        if "error" in row or row["id"] is None:
            return
        logprob = row.get("logprob", math.log(max(row["probability"], math.ulp(0.0))))
        push = heapq.heappush if len(self.kept) < self.count else heapq.heappushpop
        push(self.kept, (-logprob, -row["row"], row))

    def write(self, form: FormName) -> int:
        """The most doubtful first, the label empty, what the student reads and says beside it; returns how many they are."""
        label = "label" if form == "classes" else "text"
        rows: dict[int, dict[str, Any]] = {}
        for _, _, row in sorted(self.kept, key=lambda kept: kept[:2], reverse=True):
            shown = {name: row[name] for name in ("prompt", "answer", "probability")}
            rows.setdefault(row["id"], {"id": row["id"], label: None, **shown})
        with self.file.open("w", encoding="utf-8", newline="") as stream:
            if self.file.suffix == ".csv":
                writer = csv.DictWriter(stream, ["id", label, "prompt", "answer", "probability"])
                writer.writeheader()
                writer.writerows(rows.values())
            else:
                stream.writelines(json.dumps(row) + "\n" for row in rows.values())
        return len(rows)
