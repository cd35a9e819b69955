"""openai's weak labels of SciQ as label files: every label under the id of its own question and answer."""

import gzip
import json
import os
import runpy
import sys
from pathlib import Path

import pytest

from raw2s.labels.label_files import class_probabilities, read_label_file
from raw2s.tasks import draw_halves
from raw2s.tasks.balanced import CLASSES
from raw2s.tasks.sciq import SciqSection

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("RAW2S_SHARED", ROOT.parent / "shared")) / "data"


@pytest.fixture
def convert(monkeypatch, tmp_path):
    """Run the job; what it wrote, by file name."""

    def run(labels, data):
        monkeypatch.setattr(sys, "argv", ["sciq_label_files.py", str(labels), str(tmp_path / "out"), "--data", str(data)])
        runpy.run_path(str(ROOT / "jobs" / "sciq_label_files.py"), run_name="__main__")
        return {file.name: class_probabilities(read_label_file(file, CLASSES)) for file in (tmp_path / "out").iterdir()}

    return run


@pytest.fixture
def made(tmp_path):
    """Ten questions, and two teachers' labels of the half B of each of two seeds: p(true) is 0.9 for what is true, else 0.2."""
    answers = ("correct_answer", "distractor1", "distractor2", "distractor3")
    table = [{"question": f"Which is {i}?", **{name: f"{name} {i}" for name in answers}} for i in range(10)]
    for part in ("train", "valid", "test"):
        (tmp_path / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    for seed in (0, 1):
        student = draw_halves(SciqSection(data=str(tmp_path), n_teacher=None, n_student=None), seed).student
        true = {"true": [0.1, 0.9], "false": [0.8, 0.2]}
        rows = [{"txt": e["prompt"], "gt_label": CLASSES.index(e["gold"]), "soft_label": true[e["gold"]]} for e in student]
        for teacher in ("gpt2_xent", "gpt2-xl_xent"):
            write(tmp_path / f"seed{seed}_{teacher}.jsonl.gz", rows)
    return tmp_path


def write(file, rows):
    file.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def test_every_label_is_under_its_questions_id(made, convert):
    files = convert(made, made)
    assert sorted(files) == [f"seed{s}_{t}_xent.jsonl" for s in (0, 1) for t in ("gpt2-xl", "gpt2")]
    for seed in (0, 1):
        student = draw_halves(SciqSection(data=str(made), n_teacher=None, n_student=None, split_seed=seed), 77).student
        labels = files[f"seed{seed}_gpt2_xent.jsonl"]
        assert sorted(labels) == sorted(example["id"] for example in student)
        for example in student:
            assert labels[example["id"]] == pytest.approx([0.1, 0.9] if example["gold"] == "true" else [0.8, 0.2])


def test_labels_of_other_items_are_refused(made, convert):
    file = made / "seed0_gpt2_xent.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    write(file, [rows[1], rows[0], *rows[2:]])
    with pytest.raises(SystemExit, match=r"^seed0_gpt2_xent.jsonl.gz: row 1 is .*, where B holds .*; give other --data$"):
        convert(made, made)
    write(file, rows[:-1])
    with pytest.raises(SystemExit, match="4 labels for 5 examples of B"):
        convert(made, made)
    with pytest.raises(SystemExit, match=r"no seed0_\.\.\.\.jsonl\.gz there"):
        convert(made / "out", made)


def test_the_real_labels_agree_with_the_truth_as_often_as_their_own_file_says(convert, tmp_path):
    shipped = SHARED / "sciq_weak_labels" / "seed1_gpt2-large_xent.jsonl.gz"
    if not shipped.is_file():
        pytest.skip("the shared data folder is not here")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / shipped.name).symlink_to(shipped)
    rows = [json.loads(line) for line in gzip.decompress(shipped.read_bytes()).splitlines()]
    (labels,) = convert(tmp_path / "labels", SHARED / "sciq").values()
    student = draw_halves(SciqSection(data=str(SHARED / "sciq"), n_teacher=None, n_student=None, split_seed=1), 9).student
    right = sum((labels[example["id"]][1] > 0.5) == (example["gold"] == "true") for example in student)
    assert len(labels) == 5840
    assert right == sum((row["soft_label"][1] > 0.5) == row["gt_label"] for row in rows)
