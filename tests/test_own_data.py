"""Data of one's own from a YAML file to the report: four classes in JSON lines, and a text in CSV whose B has no answers."""

import csv
import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tiny_runs import tiny_run, write_config
from transformers import AutoModelForCausalLM, AutoTokenizer, BloomConfig, PreTrainedModel, PreTrainedTokenizerBase

from raw2s.config import load_config
from raw2s.decoding.tokens import encode_prompt, encode_target
from raw2s.labels.table import read_table
from raw2s.models.load import load_model, load_tokenizer
from raw2s.pipeline.run import run_pipeline
from raw2s.results import Results

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TEAMS = {"billing": "invoice", "delivery": "parcel", "support": "password", "sales": "price"}
"""Which team answers a mail, and the word that says so."""
TASKS = ("call", "pay", "visit")
NAMES = ("ann", "bob", "eve", "tom")


def mails(start: int, n: int) -> list[dict[str, str]]:
    teams = [list(TEAMS)[i % 4] for i in range(start, start + n)]
    return [{"title": f"mail {i}", "body": f"the {TEAMS[team]} please", "team": team} for i, team in enumerate(teams, start)]


def reminders(start: int, n: int) -> list[dict[str, object]]:
    tasks = [f"{TASKS[i % 3]} {NAMES[i % 4]}" for i in range(start, start + n)]
    return [{"id": i, "note": f"{i % 12} o'clock, {task}", "summary": task} for i, task in enumerate(tasks, start)]


def write_jsonl(file: Path, rows: list[dict[str, str]]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def write_csv(file: Path, rows: list[dict[str, object]], *columns: str) -> str:
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return str(file)


def write_bloom(folder: Path) -> str:
    """A random BLOOM that reads with tiny-gpt2's tokenizer; drawn wide, so that its beams are no ties."""
    tokenizer = load_tokenizer("tiny-gpt2")
    end = tokenizer.eos_token_id
    size = {"vocab_size": len(tokenizer), "hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(BloomConfig(**size, bos_token_id=end, eos_token_id=end, pad_token_id=None)).save_pretrained(
        folder
    )
    tokenizer.save_pretrained(folder)
    return str(folder)


def run(folder: Path, tree: dict) -> tuple[Results, str, str]:
    """(results.json, what was printed, the report) of a run from a YAML file; runs of white space are single spaces."""
    console = Console(file=io.StringIO(), width=100)
    run_pipeline(load_config(write_config(folder, tree)), console)
    made = folder / "runs" / "tiny"
    texts = (console.file.getvalue(), (made / "report.html").read_text())
    printed, report = (" ".join(text.split()) for text in texts)
    return Results.read(made), printed, report


def artifact(folder: Path, results: Results, name: str) -> Path:
    """The folder of a stage's artifact."""
    key = next(stage.key for stage in results.stages if stage.name == name)
    (found,) = (folder / "runs" / "artifacts").glob(f"*/{key}")
    return found


@torch.no_grad()
def logprob_alone(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, text: str) -> float:
    """log P(text, end marker) of one text by itself."""
    before, (ids, _) = encode_prompt(tokenizer, prompt), encode_target(tokenizer, text)
    logits_TV = model(input_ids=torch.tensor([before + ids])).logits[0, len(before) - 1 : -1]
    return logits_TV.log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).sum().item()


def test_four_classes_in_json_lines(local_ray, tmp_path):
    train = mails(0, 56)
    task = {
        "name": "own",
        "form": "classes",
        "train": write_jsonl(tmp_path / "train.jsonl", train),
        "validation": write_jsonl(tmp_path / "dev.jsonl", mails(100, 12)),
        "test": write_jsonl(tmp_path / "test.jsonl", mails(200, 12)),
        "prompt": "{title}\n{body}\n",
        "answer": "team",
        "metric": "macro_f1",
        "n_teacher": 32,
        "split_seed": 2,
        "credit": "Mails made for a test",
    }
    answers = [{"id": i, "label": row["team"]} for i, row in enumerate(train)]
    people = write_jsonl(tmp_path / "people.jsonl", answers)
    teachers = [{"name": "gpt2", "model": "tiny-gpt2"}, {"name": "people", "kind": "labels", "file": people}]
    tree = tiny_run(tmp_path / "runs", task=task, teachers=teachers, methods=[{"method": "naive"}])

    results, printed, report = run(tmp_path, tree)

    assert (results.task, results.form, results.metric) == ("own", "classes", "macro_f1")
    model, labels = results.teachers
    assert results.ceiling is not None
    assert all(0 <= system.score <= 1 for system in (model, results.ceiling, *results.students))
    assert (labels.score, labels.on_b.score) == (None, 1)
    assert (labels.on_b.items, labels.on_b.missing, labels.on_b.ids_not_in_b) == ([24], [0], [32])
    config = json.loads((artifact(tmp_path, results, results.students[0].stage) / "model" / "config.json").read_text())
    assert list(config["id2label"].values()) == sorted(TEAMS)
    table, names = read_table(artifact(tmp_path, results, "label") / "labels.parquet")
    assert names == ["gpt2", "people"]
    for row in table:
        assert [len(logits) for logits in row["logits"]] == [4, 4]
        assert sorted(TEAMS)[row["logits"][1].index(max(row["logits"][1]))] == train[row["id"]]["team"]
    assert "tiny: own, 12 test examples" in printed
    assert "macro F1" in printed
    assert "macro F1" in report
    assert "Data: Mails made for a test." in report


def test_texts_in_csv_with_a_bloom_and_no_answers_of_b(local_ray, tmp_path):
    pytest.importorskip("rouge_score")
    unanswered = reminders(100, 24)
    task = {
        "name": "own",
        "form": "text",
        "teacher": write_csv(tmp_path / "answered.csv", reminders(0, 32), "id", "note", "summary"),
        "student": write_csv(tmp_path / "unanswered.csv", unanswered, "id", "note"),
        "validation": write_csv(tmp_path / "dev.csv", reminders(200, 12), "id", "note", "summary"),
        "test": write_csv(tmp_path / "test.csv", reminders(300, 12), "id", "note", "summary"),
        "prompt": "{note}\n",
        "answer": "summary",
        "metric": "rouge_l",
        "id": "id",
    }
    bloom = {"name": "bloom", "model": write_bloom(tmp_path / "bloom")}
    changes = {
        "task": task,
        "teachers": [bloom, {"name": "gpt2", "model": "tiny-gpt2"}],
        "labeling": {"beams": 2, "max_new_tokens": 8, "batch_size": 12},
        "methods": [{"method": "joint"}],
    }

    results, printed, report = run(tmp_path, tiny_run(tmp_path / "runs", **changes))

    assert results.ceiling is None
    assert [student.pgr for student in results.students] == [None]
    assert [teacher.name for teacher in results.tested] == ["bloom", "gpt2"]
    assert all(0 <= system.score <= 1 for system in (*results.tested, *results.students))
    for text in (printed, report):
        assert "B has no ground truth: there is no ceiling, and so no PGR." in text
        assert "ROUGE-L" in text
    assert "There is no ground truth of the training text, so there is no ceiling and no PGR." in report
    assert "Data: own data." in report

    table, names = read_table(artifact(tmp_path, results, "label") / "labels.parquet")
    assert names == ["bloom", "gpt2"]
    assert {row["id"] for row in table} == {row["id"] for row in unanswered}
    assert any(row["rank"][0] >= 0 for row in table), "its own beams"
    assert any(row["rank"][0] < 0 for row in table), "the other teacher's"
    trained = artifact(tmp_path, results, "teacher/bloom") / "model"
    model, tokenizer = load_model(str(trained), "text"), AutoTokenizer.from_pretrained(trained)
    prompts = {row["id"]: f"{row['note']}\n" for row in unanswered}
    alone = [logprob_alone(model, tokenizer, prompts[row["id"]], row["text"]) for row in table]
    assert [sum(row["words"][0]) for row in table] == pytest.approx(alone, rel=1e-4)
