"""Data of one's own: mails in JSON lines, each with the team that answers it, and people's labels for the first of them."""

import json
from pathlib import Path

TEAMS = {"billing": "invoice", "delivery": "parcel", "support": "password", "sales": "price"}
"""Which team answers a mail, and the word that says so."""


def mails(start: int, n: int) -> list[dict[str, str]]:
    teams = [list(TEAMS)[i % 4] for i in range(start, start + n)]
    return [{"title": f"mail {i}", "body": f"the {TEAMS[team]} please", "team": team} for i, team in enumerate(teams, start)]


def write_jsonl(file: Path, rows: list[dict]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def own_mails(folder: Path) -> dict:
    """The config's sections: the task, a model as it is and a label file that has 52 of the 56 mails, one of them unknown."""
    train = mails(0, 56)
    answers = [{"id": i, "label": row["team"]} for i, row in enumerate(train)][4:]
    task = {
        "name": "own",
        "form": "classes",
        "train": write_jsonl(folder / "train.jsonl", train),
        "validation": write_jsonl(folder / "dev.jsonl", mails(100, 12)),
        "test": write_jsonl(folder / "test.jsonl", mails(200, 12)),
        "prompt": "{title}\n{body}\n",
        "answer": "team",
        "metric": "macro_f1",
        "n_teacher": 32,
        "split_seed": 2,
        "credit": "Mails made for a test",
    }
    plain = {"name": "gpt2", "model": "tiny-gpt2", "fine_tune": False, "instruction": "Who of {classes}?\n{prompt}", "shots": 2}
    people = {
        "name": "people",
        "kind": "labels",
        "file": write_jsonl(folder / "people.jsonl", [*answers, {"id": 99, "label": "sales"}]),
    }
    return {"task": task, "teachers": [plain, people]}
