"""Turn openai/weak-to-strong's weak labels of SciQ into label files that a run takes as teachers.

    python jobs/sciq_label_files.py LABELS OUT [--data allenai/sciq]

LABELS holds files such as seed0_gpt2_xent.jsonl.gz; OUT gets seed0_gpt2_xent.jsonl, a row {"id", "probabilities"} an item, the
probabilities of (false, true). A file's seed drew its rows, so they are B of the task sciq with that `split_seed`; every row's text
is compared with the task's before its id is written.
"""

import argparse
import gzip
import json
from functools import cache
from pathlib import Path

from raw2s.tasks import Example, draw_halves
from raw2s.tasks.sciq import SciqSection


def label_rows(lines: list[str], student: list[Example], name: str) -> list[dict]:
    """The label file's rows. Raises ValueError where the items are not B's, naming the first that differs."""
    rows = [json.loads(line) for line in lines]
    if len(rows) != len(student):
        raise ValueError(
            f"{name}: {len(rows)} labels for {len(student)} examples of B; give the data they were made of with --data"
        )
    for number, (row, example) in enumerate(zip(rows, student, strict=True), start=1):
        if row["txt"] != example["prompt"]:
            raise ValueError(f"{name}: row {number} is {row['txt']!r}, where B holds {example['prompt']!r}; give other --data")
    return [{"id": example["id"], "probabilities": row["soft_label"]} for row, example in zip(rows, student, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", default=SciqSection().data)
    arguments = parser.parse_args()
    files = sorted(arguments.labels.glob("seed[0-9]*_*.jsonl.gz"))
    if not files:
        raise SystemExit(f"{arguments.labels}: no seed0_....jsonl.gz there; give the folder of the weak labels")
    section = SciqSection(data=arguments.data, n_teacher=None, n_student=None)
    student_of = cache(lambda seed: draw_halves(section, seed).student)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for file in files:
        seed = int(file.name.removeprefix("seed").split("_")[0])
        try:
            rows = label_rows(gzip.decompress(file.read_bytes()).decode("utf-8").splitlines(), student_of(seed), file.name)
        except ValueError as error:
            raise SystemExit(str(error)) from None
        out = arguments.out / file.name.removesuffix(".gz")
        out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        print(f"{out}: {len(rows):,} labels")


if __name__ == "__main__":
    main()
