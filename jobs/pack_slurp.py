"""Pack the official SLURP text files into the compact files raw2s ships.

    python jobs/pack_slurp.py FOLDER        # FOLDER holds train, devel, test and nlu_eval_extra .jsonl

Keeps the sentence, its bracket annotation, scenario, action and the slots in the scorer's own
form: (type, lower-cased join of the token surfaces), so "jean 's" stays two words.
"""

import argparse
import gzip
import json
from pathlib import Path

SPLITS = ("train", "devel", "test", "nlu_eval_extra")
DATA = Path(__file__).resolve().parents[1] / "raw2s" / "tasks" / "data"


def compact(row: dict, index: int) -> dict:
    """One official row -> one shipped row; extra rows carry no slurp_id and get -1, -2, ..."""
    surfaces = [token["surface"].lower() for token in row["tokens"]]
    return {
        "id": row.get("slurp_id", -1 - index),
        "text": row["sentence"],
        "annotation": row["sentence_annotation"],
        "scenario": row["scenario"],
        "action": row["action"],
        "entities": [[e["type"], " ".join(surfaces[i] for i in e["span"])] for e in row["entities"]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for split in SPLITS:
        lines = (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [compact(json.loads(line), i) for i, line in enumerate(lines)]
        text = "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)
        # mtime=0: packing twice gives the same bytes
        (DATA / f"slurp_{split}.jsonl.gz").write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
        print(f"{split}: {len(rows)} rows")


if __name__ == "__main__":
    main()
