"""Text of one's own in CSV, of which B has no answers, from a YAML file to the report. Classes of one's own are in test_jobs."""

import csv
import io
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tiny_runs import tiny_run, write_config
from transformers import AutoModelForCausalLM, BloomConfig, PreTrainedModel, PreTrainedTokenizerBase

from raw2s.config import load_config
from raw2s.decoding.tokens import encode_prompt, encode_target
from raw2s.labels.table import read_table
from raw2s.models.load import load_model, load_tokenizer
from raw2s.pipeline.run import run_pipeline
from raw2s.results import Results

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TASKS = ("call", "pay", "visit")
NAMES = ("ann", "bob", "eve", "tom")


def reminders(start: int, n: int) -> list[dict[str, object]]:
    tasks = [f"{TASKS[i % 3]} {NAMES[i % 4]}" for i in range(start, start + n)]
    return [{"id": i, "note": f"{i % 12} o'clock, {task}", "summary": task} for i, task in enumerate(tasks, start)]


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


def test_texts_in_csv_without_answers_of_b_by_a_bloom_that_teaches_and_learns(local_ray, tmp_path):
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
    people = [{"id": row["id"], "text": row["summary"]} for row in unanswered[:20]]
    bloom = write_bloom(tmp_path / "bloom")
    labels = {"name": "people", "kind": "labels", "file": write_csv(tmp_path / "people.csv", people, "id", "text")}
    changes = {
        "task": task,
        "teachers": [{"name": "bloom", "model": bloom, "fine_tune": False}, labels],
        "student": {"model": bloom},
        "labeling": {"beams": 2, "max_new_tokens": 8, "batch_size": 12},
        "methods": [{"method": "joint"}],
    }

    results, printed, report = run(tmp_path, tiny_run(tmp_path / "runs", **changes))

    assert results.ceiling is None
    assert [student.pgr for student in results.students] == [None]
    assert [teacher.name for teacher in results.tested] == ["bloom"]
    assert all(0 <= system.score <= 1 for system in (*results.tested, *results.students))
    for text in (printed, report):
        assert "B has no ground truth: there is no ceiling, and so no PGR." in text
        assert "ROUGE-L" in text
    assert "There is no ground truth of the training text, so there is no ceiling and no PGR." in report
    assert "Data: own data." in report

    table, names = read_table(artifact(tmp_path, results, "label") / "labels.parquet")
    assert names == ["bloom", "people"]
    assert {row["id"] for row in table} == {row["id"] for row in unanswered}
    assert any(row["rank"][0] >= 0 for row in table), "its own beams"
    assert any(row["rank"][0] < 0 for row in table), "the other teacher's"
    model, tokenizer = load_model(bloom, "text"), load_tokenizer(bloom)
    prompts = {row["id"]: f"{row['note']}\n" for row in unanswered}
    alone = [logprob_alone(model, tokenizer, prompts[row["id"]], row["text"]) for row in table]
    assert [sum(row["words"][0]) for row in table] == pytest.approx(alone, rel=1e-4)
