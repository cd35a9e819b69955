"""Own data: a table of texts and three noisy label files become a student; is it better than who labeled for it?

    python benchmarks/own_data.py [--storage runs]     # writes benchmarks/results/own_data.json

SLURP's scenarios as plain files. Two annotators and a rule label the texts: `ann` answers all and gives another class, any, for 30 % of
them; `hasty` answers 70 % of them and takes the next class of the alphabet for 25 % of these; `rule` knows some words and says nothing
where it finds none. `raw2s init` writes the config, `raw2s run` runs it with five seeds. The labels of 2,000 texts train the student;
half of the official test set chooses its epoch, the other half tests it. Every labeler has labeled that half too, which the run never
sees: student and labeler are compared on the texts that the labeler has answered.
"""

import csv
import json
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import harness
import numpy as np

from raw2s.evaluation.comparing import holm, p_of_difference
from raw2s.evaluation.intervals import crossed_bootstrap, interval
from raw2s.pipeline.artifacts import LIBRARIES
from raw2s.pipeline.jsonl import read_jsonl
from raw2s.pipeline.testing_stages import Test
from raw2s.results import Results
from raw2s.storage import ARTIFACTS
from raw2s.tasks import draw_halves, task_of
from raw2s.tasks.slurp_scenario import ScenarioSection, scenarios

SEEDS = [1, 2, 3, 4, 5]
WRONG, ANSWERED, CONFUSED = 0.3, 0.7, 0.25
WORDS = {
    "alarm": "alarm alarms wake",
    "audio": "volume mute louder quieter",
    "email": "email emails mail inbox",
    "lists": "list lists",
    "takeaway": "takeaway takeout delivery pizza",
    "weather": "weather rain snow forecast temperature sunny",
    "iot": "light lights coffee vacuum plug",
    "news": "news headlines",
    "social": "tweet twitter facebook",
    "transport": "train taxi ticket tickets traffic uber",
    "cooking": "recipe cook bake",
    "recommendation": "restaurant restaurants nearby",
    "calendar": "calendar meeting meetings reminder remind appointment schedule",
    "play": "play radio podcast audiobook",
    "music": "song songs",
    "datetime": "time date timezone",
    "general": "joke",
}
"""The rule's, the first that fits; written without looking at any count."""

Labeler = Callable[[str, str], str]


def labelers(draw: random.Random) -> dict[str, Labeler]:
    """Each from a text and its scenario; an empty string is no answer."""
    names = list(scenarios())

    def ann(text: str, truth: str) -> str:
        return draw.choice([name for name in names if name != truth]) if draw.random() < WRONG else truth

    def hasty(text: str, truth: str) -> str:
        if draw.random() >= ANSWERED:
            return ""
        return names[(names.index(truth) + 1) % len(names)] if draw.random() < CONFUSED else truth

    def rule(text: str, truth: str) -> str:
        found = set(text.split())
        return next((name for name, own in WORDS.items() if found & set(own.split())), "")

    return {"ann": ann, "hasty": hasty, "rule": rule}


def write_files(folder: Path) -> dict[str, dict[int, str]]:
    """rows.csv, and a label file each; returns every labeler's answers by id."""
    section = ScenarioSection(n_teacher=1000, n_student=2000, n_test=None, split_seed=1)
    unanswered = draw_halves(section, 1).student
    tested = task_of(section).held_out("test")
    write_csv(
        folder / "rows.csv",
        [{"id": e["id"], "utterance": e["prompt"].strip(), "scenario": ""} for e in unanswered]
        + [{"id": e["id"], "utterance": e["prompt"].strip(), "scenario": e["gold"]} for e in tested],
    )
    given = {}
    for name, answer in labelers(random.Random(1)).items():
        labels = {e["id"]: answer(e["prompt"].strip(), str(e["gold"])) for e in (*unanswered, *tested)}
        given[name] = {i: label for i, label in labels.items() if label}
        write_csv(folder / f"{name}.csv", [{"id": e["id"], "label": labels[e["id"]]} for e in unanswered])
    return given


def write_csv(file: Path, rows: list[dict[str, Any]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def compared(given: Mapping[int, str], ids: list[int], gold: list[str], correct_SU: np.ndarray) -> dict[str, Any]:
    """A labeler and the student on the test texts that the labeler has answered, means over the seeds."""
    answered = np.array([i in given for i in ids])
    labeler_U = np.array([given.get(i) == label for i, label in zip(ids, gold, strict=True)], dtype=np.float64)[answered]
    student_SU = correct_SU[:, answered]
    samples = crossed_bootstrap({"student": list(student_SU), "labeler": [labeler_U] * len(SEEDS)}, lambda means: means)
    difference_R = samples["student"] - samples["labeler"]
    return {
        "answered": float(answered.mean()),
        "accuracy": float(labeler_U.mean()),
        "student_there": float(student_SU.mean()),
        "over": float(student_SU.mean() - labeler_U.mean()),
        "over_ci95": interval(difference_R),
        "p": p_of_difference(difference_R),
    }


def main() -> None:
    parser = harness.parser(__doc__, "own_data.json")
    parser.add_argument("--storage", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    folder = (arguments.storage / "own_data_files").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    given = write_files(folder)
    raw2s = (sys.executable, "-m", "raw2s.cli")
    config = folder / "config.yaml"
    config.unlink(missing_ok=True)
    subprocess.run([*raw2s, "init", "rows.csv", *(f"{name}.csv" for name in given)], cwd=folder, check=True)
    storage = arguments.storage.resolve()
    changed = ("--set", f"seeds={SEEDS}", "--set", "name=own_data", "--set", f"storage={storage}")
    subprocess.run([*raw2s, "run", str(config), *changed], cwd=folder, check=True)
    found = measured(storage, given)
    print(json.dumps(found, indent=1))
    harness.write(arguments.out, {"environment": harness.environment(*LIBRARIES, seeds=SEEDS), **found})


def measured(storage: Path, given: Mapping[str, Mapping[int, str]]) -> dict[str, Any]:
    """The student's accuracy on the test part, and how far above each labeler it is."""
    results = Results.read(storage / "own_data")
    (student,) = results.students
    keys = {stage.name: stage.key for stage in results.stages}
    rows = [
        read_jsonl(storage / ARTIFACTS / Test.kind / keys[name] / Test.PREDICTIONS)
        for name in (f"test/{student.stage}@{seed}" for seed in SEEDS)
    ]
    ids, gold = [row["id"] for row in rows[0]], [row["gold"] for row in rows[0]]
    correct_SU = np.array([[row["predicted"] == row["gold"] for row in own] for own in rows], dtype=np.float64)
    of = {name: compared(own, ids, gold, correct_SU) for name, own in given.items()}
    for name, p in zip(of, holm([own["p"] for own in of.values()]), strict=True):
        of[name]["p_holm"] = p
    means_S = correct_SU.mean(axis=1)
    return {
        "test_texts": len(ids),
        "labeled_texts": 2000,
        "student": {
            "accuracy": float(means_S.mean()),
            "standard_error": float(means_S.std(ddof=1) / np.sqrt(len(SEEDS))),
            "accuracy_ci95": student.ci95,
            "by_seed": means_S.tolist(),
        },
        "labelers": of,
    }


if __name__ == "__main__":
    main()
