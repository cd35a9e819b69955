"""`ray job submit` against a real head, and the sweep job."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import mlflow
import pytest
import yaml
from cluster_page import BIN, page_command
from harness import MARK, marked
from own_mails import TEAMS, mails, own_mails
from submitting import make_checkout, once_up
from sweep_demo import wait_until_none
from tiny_runs import LONG, ROOT, tiny_run, wait_for_a_step, write_config

from raw2s.cli import main
from raw2s.labels.table import read_table
from raw2s.pipeline.local_ray import free_port
from raw2s.results import Results
from raw2s.status import RunStatus
from raw2s.tuning.reading import load_sweeps
from raw2s.tuning.trials import FILE, read_trials

BAD = """
import runpy, sys
from pathlib import Path
from raw2s.pipeline.run import passing_storage

print(passing_storage(Path("runs")), passing_storage(Path("/runs")))
sys.argv = ["full_pipeline.py", "--config", "configs/tiny.yaml", "--set", "labling.beams=3"]
runpy.run_path("jobs/full_pipeline.py", run_name="__main__")
"""
"""What is said of two storages in a job, and a job with a mistake in its config."""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a job gets as its working directory."""
    return make_checkout(tmp_path_factory.mktemp("jobs") / "checkout")


@pytest.fixture(scope="module")
def environment(checkout: Path) -> dict[str, str]:
    """Of every process started here: with a token, as the README says, and a mark to find them by."""
    own = {
        "HOME": str(checkout.parent), "RAY_AUTH_MODE": "token", "PYTHONUNBUFFERED": "1", MARK: uuid4().hex,
        "RAY_JOB_STOP_WAIT_TIME_S": "60",  # until SIGKILL: Ray's 3 s may be too few on a busy machine
    }  # fmt: skip
    clean = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")} | own
    subprocess.run(page_command("ray get-auth-token"), env=clean, check=True, capture_output=True)
    return clean


def answers(port: int, head: subprocess.Popen[bytes]) -> bool:
    """Whether the head does there before it ends."""
    while head.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
        time.sleep(0.2)
    return False


@pytest.fixture(scope="module")
def job_server(environment: dict[str, str]) -> Iterator[str]:
    """The address of a head of our own, started and stopped by its process, on loopback only."""

    def start(dashboard: int, agent: int) -> subprocess.Popen[bytes]:
        command = [
            str(BIN / "ray"), "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={free_port()}",
            "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}",
            "--num-cpus=8", "--object-store-memory=300000000",
            f"--temp-dir={folder}", "--disable-usage-stats",
        ]  # fmt: skip
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # a socket's path is short: pytest's are too deep
        for _ in range(3):  # another process may take a port before Ray does, and a busy machine be too slow for Ray
            ports = free_port(), free_port()
            head = start(*ports)
            if all(answers(port, head) for port in ports):
                break
        else:
            pytest.fail("no head has come up")
        yield f"http://127.0.0.1:{ports[0]}"
        head.terminate()
        head.wait(timeout=60)
        wait_until_none(lambda: marked(environment[MARK]), "processes")


@pytest.fixture(scope="module")
def submit(job_server: str, checkout: Path, environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`ray job submit`."""

    def submitted(*arguments: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        command = [
            str(BIN / "ray"), "job", "submit", "--address", job_server, "--working-dir", str(checkout), *options,
            "--", sys.executable, *arguments,
        ]  # fmt: skip
        return once_up(lambda: subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False))

    return submitted


@pytest.fixture(scope="module")
def classification(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """A small run over classes of one's own. The job and the sweep share its storage, so the sweep finds the job's labels."""
    folder = tmp_path_factory.mktemp("classification")
    return (
        tiny_run(folder / "runs")
        | own_mails(folder)
        | {
            "labeling": {"batch_size": 24},
            "student_training": {"epochs": 2, "keep": "best"},
            "methods": [{"method": "bayesian", "loss": {"gamma_max": 0.1, "kl_weight": 0.01}}],
        }
    )


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_a_submitted_job_of_own_classes_streams_output_and_returns_its_exit_status(submit, classification, checkout):
    (checkout / "configs" / "tiny.yaml").write_text(yaml.safe_dump(classification))
    good = submit("jobs/full_pipeline.py", "--config", "configs/tiny.yaml")
    assert good.returncode == 0, good.stdout + good.stderr
    assert "test/ceiling: done" in good.stdout
    assert "tiny: own, 12 test examples" in good.stdout
    check_own_classes(Path(classification["storage"]))
    bad = submit("-c", BAD)
    assert bad.returncode != 0
    assert "labling: unknown key; did you mean labeling?" in bad.stdout + bad.stderr
    assert "storage runs lies in this job's copy of its working directory" in bad.stdout
    assert "every node sees None" in bad.stdout
    assert "this job's copy" not in good.stdout


def check_own_classes(storage: Path) -> None:
    """What a run over `own_mails` leaves."""
    results = Results.read(storage / "tiny")
    assert (results.task, results.form, results.metric) == ("own", "classes", "macro_f1")
    model, people = results.teachers
    assert results.ceiling is not None
    assert all(0 <= system.score <= 1 for system in (model, results.ceiling, *results.students))
    assert (people.score, people.on_b.score) == (None, 1)

    def made(name: str) -> Path:
        key = next(stage.key for stage in results.stages if stage.name == name)
        return next(storage.glob(f"artifacts/*/{key}"))

    with (made("split") / "student.jsonl").open() as file:
        ids = [json.loads(line)["id"] for line in file]
    labeled = len([i for i in ids if i >= 4])
    assert (people.on_b.items, people.on_b.missing, people.on_b.ids_not_in_b) == ([labeled], [24 - labeled], [53 - labeled])
    config = json.loads((made(results.students[0].stage) / "model" / "config.json").read_text())
    assert list(config["id2label"].values()) == sorted(TEAMS)
    table, names = read_table(made("label") / "labels.parquet")
    assert names == ["gpt2", "people"]
    for row in table:
        assert len(row["logits"][0]) == 4
        assert (row["logits"][1] is None) == (row["id"] < 4)
        if row["id"] >= 4:
            assert sorted(TEAMS)[row["logits"][1].index(max(row["logits"][1]))] == mails(row["id"], 1)[0]["team"]
    report = " ".join((storage / "tiny" / "report.html").read_text().split())
    assert "macro F1" in report
    assert "Data: Mails made for a test." in report


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_stopped_job_ends_with_its_workers_and_says_so(job_server, environment, checkout, tmp_path):
    """With the commands of docs/cluster.md."""
    (checkout / "configs" / "demo.yaml").write_text(yaml.safe_dump(tiny_run(tmp_path / "elsewhere", **LONG)))
    job = checkout / "jobs" / "full_pipeline.py"
    job.write_text(
        f"import raw2s.interrupt\n\nraw2s.interrupt.SECONDS = 50  # on a busy machine its word takes longer\n{job.read_text()}"
    )
    server = {"http://127.0.0.1:8265": job_server}
    submit = page_command("ray job submit", server | {"python": sys.executable, "/shared/runs": str(tmp_path / "runs")})

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=100, check=False)

    begun = once_up(lambda: run(*submit))
    assert begun.returncode == 0, begun.stdout + begun.stderr
    wait_for_a_step(tmp_path / "runs" / "tiny", seconds=500)
    stopped = run(*page_command("ray job stop", server))
    assert "was stopped" in stopped.stdout + stopped.stderr
    assert "teacher/gpt2: started" in run(*page_command("ray job logs", server)).stdout
    status = RunStatus.read(tmp_path / "runs" / "tiny")
    assert status is not None and (status.outcome, status.reason) == ("killed", "stopped by Ctrl-C or a signal")
    wait_until_none(lambda: [p for p in marked(environment[MARK]) if "RayTrainWorker" in " ".join(p.cmdline())], "workers")


GOOD, STILL, WILD = 5e-3, 1e-9, 1e30
"""Learning rates: one that learns, one that does not, and one whose loss is NaN."""
TAKEN_UP = """
import runpy, sys, time
from dataclasses import replace
from pathlib import Path
import ray
from raw2s.tuning.reading import load_sweeps
from raw2s.tuning.trials import append_trial, read_trials

def start(*more):
    sys.argv = ["sweep.py", "--config", file, *more]
    try:
        runpy.run_path("jobs/sweep.py", run_name="__main__")
    except SystemExit as ended:
        assert not ended.code, ended.code

file = sys.argv[1]
start()
(sweep,) = load_sweeps(Path(file), [])
folder = sweep.config(sweep.start).storage / sweep.settings.name
(stopped,) = [trial for trial in read_trials(folder, sweep) if trial.status == "stopped"]
append_trial(folder, replace(stopped, figure=2.0))
print("again")
start("--set", "sweep.trials=3")
for _ in range(60):
    groups = {group["state"] for group in ray.util.placement_group_table().values()}
    reserved = {n: a - ray.available_resources().get(n, 0) for n, a in ray.cluster_resources().items() if n in ("CPU", "GPU")}
    if groups == {"REMOVED"} and not any(reserved.values()):
        break
    time.sleep(0.5)
print("left", groups, reserved)
"""
"""A sweep taken up; the stopped trial made the best so far, and the sweep started again, with nothing left to try; what Ray still holds."""


@pytest.fixture(scope="module")
def sweep_file(classification, checkout) -> Path:
    """TPE's first points with this seed: two that learn, of which the second fits temperatures; and once the first of them is
    known and the second is not, the second again, then the wild one, which needs the same labels of devel, then the still one.
    """
    storage = Path(classification["storage"])
    *models, people = classification["teachers"]
    shutil.copy(people["file"], checkout)
    relative = {**people, "file": Path(people["file"]).name}  # to where the sweep is started; its trials run elsewhere
    write_config(storage.parent, {**classification, "teachers": [*models, relative]})
    sweep = {
        "base": "config.yaml",
        "sweep": {"name": "search", "trials": 4, "concurrent": 2, "seed": 89},
        "labeling": {"calibrate": {"choice": [None, "temperature"]}},
        "student_training": {"learning_rate": {"choice": [WILD, STILL, GOOD]}, "batch_size": 4, "micro_batch_size": 4},
        "weights": {"loss": {"simplex": 2}},
    }
    file = storage.parent / "sweep.yaml"
    file.write_text(yaml.safe_dump(sweep, sort_keys=False))
    return file


def started_and_killed(file: Path, folder: Path, checkout: Path, environment: dict[str, str]) -> None:
    """A sweep with a Ray of its own, beside the head's; killed when its first trial has ended and its second has begun."""
    mark, log = uuid4().hex, file.with_suffix(".txt")
    driver = subprocess.Popen(
        [sys.executable, str(ROOT / "jobs" / "sweep.py"), "--config", str(file), "--set", "sweep.concurrent=1"],
        env=environment | {MARK: mark}, cwd=checkout, stdout=log.open("w"), stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        while not (folder / FILE).is_file() or '"number": 2' not in (folder / FILE).read_text():
            assert driver.poll() is None, log.read_text()
            time.sleep(0.2)
    finally:
        driver.kill()
        driver.wait()
    wait_until_none(lambda: marked(mark), "processes")


def logged_trials(storage: Path) -> list[dict[str, mlflow.entities.Run]]:
    """Of every start of the sweep, in order, its trials' runs by name."""
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{storage / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("raw2s").experiment_id], order_by=["attributes.start_time ASC"])
    starts = [run.info.run_id for run in runs if run.info.run_name == "search"]
    return [{run.info.run_name: run for run in runs if run.data.tags.get("mlflow.parentRunId") == start} for start in starts]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_sweep_is_taken_up_by_a_job_and_ends(submit, sweep_file, checkout, environment, monkeypatch, capsys):
    monkeypatch.chdir(checkout)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    storage = sweep_file.parent / "runs"
    folder, sweep = storage / "search", load_sweeps(sweep_file, [])[0]
    started_and_killed(sweep_file, folder, checkout, environment)
    assert [trial.status for trial in read_trials(folder, sweep)] == ["finished", "running"]

    done = submit("-c", TAKEN_UP, str(sweep_file))
    assert done.returncode == 0, done.stdout + done.stderr
    taken_up, again = done.stdout.split("\nagain\n")
    first, cut_off, *later = read_trials(folder, sweep)
    by_rate = {trial.values["student_training.learning_rate"]: trial for trial in later}
    assert by_rate.keys() == {GOOD, STILL, WILD}, "the search draws otherwise: choose another seed"
    repeated, still, wild = (by_rate[rate] for rate in (GOOD, STILL, WILD))
    assert repeated.point == cut_off.point
    assert {trial.values["labeling.calibrate"] for trial in (repeated, wild)} == {"temperature"}
    assert [trial.status for trial in (first, cut_off, repeated, wild)] == ["finished", "running", "finished", "failed"]
    assert re.search(r"^trial 1: finished, .* \(before\)$", taken_up, re.MULTILINE)
    assert f"trial {still.number}: stopped, epoch 1, " in taken_up
    assert "loss is nan" in wild.reason
    assert f"trial {wild.number}: failed, {wild.reason}" in taken_up

    assert (still.status, still.epoch) == ("finished", 2)  # once a figure had made it the best
    assert still.figure < max(first.figure, repeated.figure)
    assert "student/0-bayesian: done" in again
    assert "by trials 0 found, 0 made" in again
    assert re.search(r"^left \{'REMOVED'\} \{'CPU': 0.0\}$", again, re.MULTILINE), again
    assert [len(list((storage / "artifacts" / kind).iterdir())) for kind in ("label", "fit")] == [1, 1]
    assert not list(storage.glob("artifacts/*/.*"))  # of stages that were cut off, or made at the same time

    killed, second, third = logged_trials(storage)
    assert {name: run.info.status for name, run in killed.items()} == {"trial-1": "FINISHED", "trial-2": "KILLED"}
    found = {name for name, run in second.items() if run.data.tags["raw2s.cached"] == "true"}
    assert (found, second.keys()) == ({first.name}, {first.name, *(trial.name for trial in later)})
    assert killed[first.name].info.run_id == first.run_id
    assert [second[trial.name].info.run_id for trial in later] == [trial.run_id for trial in later]
    ended = [second[trial.name].data.tags["raw2s.status"] for trial in (repeated, wild, still)]
    assert ended == ["finished", "failed", "stopped"]
    (chosen,) = [run for run in third.values() if "raw2s.best" in run.data.tags]
    assert chosen.info.run_name == max((first, repeated), key=lambda trial: trial.figure).name
    assert all(0 < run.data.metrics["devel_score_se"] < 0.3 for run in third.values())
    assert f"report   {folder / 'report.html'}" in again

    best = folder / "best.yaml"
    assert sum(yaml.safe_load(best.read_text())["weights"]["loss"]) == pytest.approx(1, abs=1e-5)
    assert main(["plan", str(best)]) == 0
    assert re.search(r"student/0-bayesian +student/\w+ +finished", capsys.readouterr().out)
