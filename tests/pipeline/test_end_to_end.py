"""The main job on a few utterances: what it leaves, what a second run reuses, what a killed run keeps."""

import json
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import mlflow
import pytest
from datasets import load_from_disk
from tiny_runs import finish, kill_when, start_pipeline, tiny_run, write_config

from raw2s.cli import main
from raw2s.decoding.bridge import words
from raw2s.results import Results
from raw2s.storage.files import files_in, read
from raw2s.training.progress import read_progress

TEACHERS = [{"name": "gpt2", "model": "tiny-gpt2"}, {"name": "opt", "model": "tiny-opt", "fine_tune": False}]
NEOX = {"name": "gpt-neox", "model": "tiny-gpt-neox"}
BACKEND = "ctranslate2" if find_spec("ctranslate2") else "torch"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(700)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(storage, output) of one uninterrupted run."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    process = start_pipeline(write_config(folder, tiny_run(folder / "runs", teachers=TEACHERS)))
    output = finish(process, seconds=600)
    assert process.returncode == 0, output
    return folder / "runs", output


def manifests(storage: Path) -> dict[str, dict]:
    found = {}
    for file in sorted(storage.glob("artifacts/*/*/manifest.json")):
        if not file.parent.name.startswith(".") and "damaged" not in file.parent.name:
            found[f"{file.parent.parent.name}/{file.parent.name}"] = json.loads(file.read_text())
    return found


def started(output: str) -> set[str]:
    """The stages that a run had to make."""
    return {line.split("] ")[1].split(": ")[0] for line in output.splitlines() if line.endswith(": started")}


def contents(storage: Path) -> dict[str, dict]:
    """Every artifact's checksums: two runs that agree here are the same to the last bit."""
    return {name: manifest["files"] for name, manifest in manifests(storage).items()}


def test_leaves_results_report_and_mlflow_runs(finished):
    storage, output = finished
    results = Results.read(storage / "tiny")
    assert [teacher.name for teacher in results.tested] == ["gpt2", "opt"]
    assert [student.method for student in results.students] == ["bayesian", "bayesian+cdpo"]
    (claim,) = results.claims
    assert claim.statement.startswith("Preference training (cDPO) adds")
    assert [student.stage for student in results.students] == ["student/0-bayesian", "cdpo/0"]
    assert all(0 <= system.score <= 1 for system in [*results.tested, results.ceiling, *results.students, results.baseline])
    assert {"split", "teacher/gpt2", "beams/opt", "label", "student/0-bayesian", "pairs/0", "cdpo/0"} <= {
        stage.name for stage in results.stages
    }
    assert not any(stage.cached for stage in results.stages)
    of_itself = {(own.stage, own.teacher): own for own in results.agreements}["teacher/opt", "teacher/opt"]
    assert of_itself.same == 1.0 and 0 < of_itself.both_wrong <= 1
    assert len(results.agreements) == 2 * 5
    assert "tiny-opt: cc-by-4.0, as its card says" in results.licences
    assert all(student.pgr_ci95_examples == student.pgr_ci95 for student in results.students)  # one seed
    page = (storage / "tiny" / "report.html").read_text()
    assert all(part in page for part in ("<svg", "The teachers and the student all differ: ", ", is right: "))
    assert "SLU-F1" in output
    assert re.search(r"beams/opt: done in .* prompts_per_second [\d.]+", output)
    assert all(re.search(rf"label: done in .* prompts_per_second/{name} [\d.]+", output) for name in ("gpt2", "opt"))
    assert "report.html" in output
    assert "Traceback" not in output
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{storage / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("raw2s")
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    assert parents[0].info.status == "FINISHED"
    assert parents[0].data.metrics["ceiling"] == pytest.approx(results.ceiling.score)
    student = next(run for run in runs if run.info.run_name == "student/0-bayesian")
    assert student.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
    assert client.get_metric_history(student.info.run_id, "train/loss")
    made = {stage.name: stage.seconds for stage in results.stages}
    children = [run for run in runs if run.info.run_name in made]
    assert len(children) == len(made)
    for run in children:
        assert run.info.end_time - run.info.start_time >= 900 * made[run.info.run_name], "it starts when its stage does"


def test_the_epoch_of_the_highest_score_is_kept_and_its_score_reported(finished):
    storage, _ = finished
    folder = folders_of(storage, "student/0-bayesian")["student/0-bayesian"]
    metrics = json.loads((folder / "manifest.json").read_text())["metrics"]
    points = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    scores = [point["validation_score"] for point in points if "validation_score" in point]
    assert len(scores) == 2
    assert metrics["validation_score"] == max(scores)
    assert metrics["epoch_kept"] == 1 + scores.index(max(scores)), "of equal ones the first"


def test_every_id_is_labeled_by_every_teacher_with_consistent_scores(finished):
    import pyarrow.parquet as pq

    storage, _ = finished
    table = pq.read_table(next(storage.glob("artifacts/label/*/labels.parquet"))).to_pylist()
    split = next(storage.glob("artifacts/split/*/student.jsonl"))
    ids = [json.loads(line)["id"] for line in split.read_text().splitlines()]
    assert list(dict.fromkeys(row["id"] for row in table)) == ids
    for row in table:
        count = len(words(row["text"])) + 1
        assert [len(scores) for scores in row["words"]] == [count, count]
        assert all(sum(scores) <= 0 for scores in row["words"])
        assert any(rank >= 0 for rank in row["rank"])


def test_every_teachers_own_beams_are_in_the_table(finished):
    import pyarrow.parquet as pq

    storage, _ = finished
    table = pq.read_table(next(storage.glob("artifacts/label/*/labels.parquet")))
    names = json.loads(table.schema.metadata[b"teachers"])
    assert names == ["gpt2", "opt"]
    ranked = {(row["id"], place, rank): row["text"] for row in table.to_pylist() for place, rank in enumerate(row["rank"])}
    for name in names:
        (folder,) = folders_of(storage, f"beams/{name}").values()
        for row in pq.read_table(folder / "answers.parquet").to_pylist():
            own = [ranked[row["id"], names.index(name), rank] for rank in range(len(row["texts"]))]
            assert own == row["texts"]
        assert pq.read_table(folder / "rejects.parquet").num_rows == 0


def test_a_second_run_reuses_every_stage(finished):
    storage, _ = finished
    before = contents(storage)
    process = start_pipeline(storage.parent / "config.yaml")
    output = finish(process, seconds=120)
    assert process.returncode == 0, output
    assert contents(storage) == before
    assert not started(output)
    assert all(stage.cached for stage in Results.read(storage / "tiny").stages)


def test_its_label_table_is_found_and_exported(finished, tmp_path, capsys):
    storage, _ = finished
    (table,) = storage.glob("artifacts/label/*/labels.parquet")
    assert main(["label", str(storage.parent / "config.yaml")]) == 0
    assert f"labels   {table.resolve()}" in capsys.readouterr().out.splitlines()
    assert main(["labels", "export", str(storage / "tiny"), "--to", str(tmp_path / "made")]) == 0
    exported = load_from_disk(str(tmp_path / "made"))
    assert set(exported["teacher"]) == {"gpt2", "opt"}
    assert len(exported) == 2 * len(set(exported["id"]))
    assert max(exported["logprob"]) < 0


def test_a_stage_that_fails_costs_nothing_else_and_another_teacher_is_the_only_one_to_generate(finished):
    """The ceiling's loss is NaN after a step: one line says so, no worker tries again, and the new teacher beside it is kept."""
    import pyarrow.parquet as pq

    storage, _ = finished
    (before,) = storage.glob("artifacts/label/*/labels.parquet")
    known = {(row["id"], row["text"]): row["words"] for row in pq.read_table(before).to_pylist()}
    teachers = json.dumps([*TEACHERS, NEOX | {"backend": BACKEND}])
    wild = ("epochs=4", "learning_rate=1e30", "max_grad_norm=0", "checkpoint_every=1", "batch_size=8")

    def run(*settings: str) -> tuple[int | None, str]:
        process = start_pipeline(storage.parent / "config.yaml", *(part for setting in settings for part in ("--set", setting)))
        output = finish(process, seconds=300)
        return process.returncode, output

    same = (f"teachers={teachers}", "methods=[]", "name=another", "ray.parallel_stages=6")
    code, output = run(*same, *(f"ceiling_training.{setting}" for setting in wild))
    assert code == 1, output
    assert "Traceback" not in output
    failed = re.search(r"stage ceiling failed: .* in step (\d+) \(rows .* of step (\d+), (\S+)", output)
    assert failed is not None, output
    progress = read_progress(Path(failed[3]))
    assert progress.step == int(failed[2]) == len(progress.history) == int(failed[1]) - 1

    assert "teacher/gpt-neox: done" in output
    made = started(output)

    code, output = run(*same)
    assert code == 0, output
    converted = {"convert/gpt-neox"} if BACKEND == "ctranslate2" else set()
    assert "label" in started(output) and "teacher/gpt-neox" not in started(output)
    assert (
        made | started(output) == {"ceiling", "teacher/gpt-neox", "beams/gpt-neox", "label", "test/teacher/gpt-neox"} | converted
    )
    assert len(list(storage.glob("artifacts/converted/*/model/model.bin"))) == len(converted)
    (after,) = set(storage.glob("artifacts/label/*/labels.parquet")) - {before}
    table = pq.read_table(after).to_pylist()
    assert {row["id"] for row in table} == {i for i, _ in known}
    assert all(len(row["words"]) == 3 and None not in row["words"] for row in table)
    old = [row for row in table if (row["id"], row["text"]) in known]
    assert len(old) == len(known) < len(table)
    assert [row["words"][:2] for row in old] == [known[row["id"], row["text"]] for row in old]
    shutil.rmtree(after.parent)  # the tests that follow know one table


def folders_of(storage: Path, *stages: str) -> dict[str, Path]:
    """By stage its artifact's folder, as the last finished run of this name found it."""
    made = Results.read(storage / "tiny").stages
    return {stage.name: next(storage.glob(f"artifacts/*/{stage.key}")) for stage in made if stage.name in stages}


def hidden(storage: Path) -> set[str]:
    """What stages have begun and not finished."""
    return {folder.name for folder in storage.glob("artifacts/*/.*") if folder.is_dir()}


def flip_a_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_killed_in_a_stage_and_damaged_it_ends_as_the_uninterrupted_run(finished):
    storage, _ = finished
    before = contents(storage)
    removed = folders_of(storage, "beams/opt", "cdpo/0")
    tested = folders_of(storage, "test/ceiling")["test/ceiling"]
    for folder in removed.values():
        shutil.rmtree(folder)  # as if they had never run
    kept, unfinished = set(contents(storage)), hidden(storage)
    parts = removed["cdpo/0"].with_name(f".{removed['cdpo/0'].name}.parts")
    process = start_pipeline(storage.parent / "config.yaml")
    output = kill_when(process, "cdpo/0: started", lambda: any(parts.glob("train/*/progress.json")))  # its first checkpoint
    assert "beams/opt: started" in output, output
    assert main(["status", str(storage / "tiny")]) == 4, "killed -9, it could not say so"
    assert kept <= set(contents(storage)), "a finished stage was lost"
    flip_a_byte(tested / "counts.npy")
    missing = {name for name, folder in removed.items() if not folder.exists()}
    process = start_pipeline(storage.parent / "config.yaml")
    output = finish(process, seconds=300)
    assert process.returncode == 0, output
    assert contents(storage) == before
    assert "counts.npy has changed since it was written" in output
    assert started(output) == missing | {"test/ceiling"}, "no other stage is built"
    assert main(["status", str(storage / "tiny")]) == 0
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{storage / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("raw2s").experiment_id])
    assert {"tiny", "cdpo/0"} <= {run.info.run_name for run in runs if run.info.status == "KILLED"}
    assert not [run for run in runs if run.info.status == "RUNNING"]
    assert hidden(storage) == unfinished, "temporary folders of killed runs were not removed"


def test_storage_may_be_a_bucket(finished, bucket, tmp_path, monkeypatch):
    """The same run into a server that speaks S3: the same artifacts to the last bit, found by a second run on a node without copies."""
    storage, _ = finished
    config, there = write_config(tmp_path, tiny_run(bucket / "runs", teachers=TEACHERS)), bucket / "runs"
    process = start_pipeline(config)
    output = finish(process, seconds=600)
    assert process.returncode == 0, output
    assert f"results  {there / 'tiny' / 'results.json'}" in output
    names = [name for name in files_in(there / "artifacts") if name.endswith("/manifest.json")]
    made = {name.removesuffix("/manifest.json"): json.loads(read(there / "artifacts" / name))["files"] for name in names}
    local_run = contents(storage)  # of whose artifacts other tests may have made more
    assert made == {name: local_run[name] for name in made}
    assert {stage.key for stage in Results.read(storage / "tiny").stages} == {name.partition("/")[2] for name in made}
    assert not [name for name in files_in(there / "artifacts") if name.split("/")[1].startswith(".")], "parts outlived the run"
    assert files_in(there / "tiny").keys() >= {"config.yaml", "results.json", "report.html"}

    monkeypatch.setenv("RAW2S_CACHE", str(tmp_path / "copies"))
    process = start_pipeline(config)
    output = finish(process, seconds=300)
    assert process.returncode == 0, output
    assert started(output) == set()
    assert main(["report", str(there / "tiny")]) == 0
    assert main(["export", str(there / "tiny"), "student/0-bayesian", str(tmp_path / "student")]) == 0
    assert main(["labels", "export", str(there / "tiny"), "--to", str(tmp_path / "labels")]) == 0
    assert main(["store", str(there), "--verify"]) == 0
