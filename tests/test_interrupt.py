"""Ctrl-C: the first ends a command within seconds and says how to go on, the second at once."""

import os
import signal
import subprocess
import sys
import time

import mlflow
import pytest
from tiny_runs import JOB, LONG, ROOT, start_pipeline, teacher_of, tiny_run, wait_for_a_step, write_config

from raw2s.interrupt import SECONDS, STATUS, ending_on_interrupt
from raw2s.status import RunStatus

SAID = "raw2s run: stopping; what is finished is kept, and the same command resumes there (Ctrl-C again kills at once)"
WAITING = """
import signal, threading, time
from concurrent.futures import ThreadPoolExecutor, wait
from raw2s.cli import guarded

def work():
    pool = ThreadPoolExecutor(1)
    try:
        stage = pool.submit(time.sleep, 60)
        print("up", flush=True)
        wait([stage])
    finally:
        pool.shutdown(wait=False)
        print("left", flush=True)

guarded("raw2s run", work)
"""
"""As `execute` waits for a stage that goes on whatever happens."""
LIKE_RAY = WAITING.replace(
    "wait([stage])", "signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number)); wait([stage])"
).replace("import signal", "import signal, sys")
"""With Ray's own answer to SIGTERM, which it puts over ours."""
FAILING = """
import time
from raw2s.cli import guarded
from raw2s.errors import StageFailed

def work():
    try:
        print("up", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("left", flush=True)
        raise StageFailed("its workers went first")

guarded("raw2s run", work)
"""
DEAF = """
import signal, time
from raw2s.cli import guarded

def work():
    signal.pthread_sigmask(signal.SIG_BLOCK, [])
    print("up", flush=True)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            pass

guarded("raw2s run", work)
"""
"""A library that swallows the interrupt."""
LEAVING = """
import runpy
import raw2s.interrupt

raw2s.interrupt.SECONDS = {seconds}
"""
"""How long the main thread may take to leave, in place of what is usual."""
PATIENT_JOB = LEAVING.format(seconds=100) + f"runpy.run_path({JOB!r}, run_name='__main__')"
"""The main job, which tells MLflow and writes its status before it leaves: on a busy machine that may take more than seconds."""


def started(script: str) -> subprocess.Popen[str]:
    """The script as a shell starts what is behind an &, with SIGINT ignored; it is up."""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    return process


def ended(process: subprocess.Popen[str], within: float) -> tuple[str, str]:
    try:
        return process.communicate(timeout=within)
    finally:
        process.kill()


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("script", "sent", "status"),
    [
        (WAITING, signal.SIGINT, STATUS),
        (WAITING, signal.SIGTERM, 143),
        (LIKE_RAY, signal.SIGTERM, 143),
        (FAILING, signal.SIGINT, STATUS),
    ],
    ids=["Ctrl-C", "SIGTERM", "SIGTERM under Ray", "Ctrl-C that fails a stage"],
)
def test_the_first_leaves_a_stage_that_runs_on_and_says_how_to_go_on(script, sent, status):
    process = started(script)
    process.send_signal(sent)
    out, err = ended(process, within=10)
    assert process.returncode == status
    assert err.strip() == SAID
    assert out == "left\n", "what is open was closed"


@pytest.mark.timeout(120)
def test_the_second_kills_what_does_not_listen():
    process = started(LEAVING.format(seconds=50) + DEAF)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert [process.stderr.readline(), process.stderr.readline()] == ["\n", f"{SAID}\n"]
    process.send_signal(signal.SIGINT)
    ended(process, within=30)
    assert process.returncode == STATUS


@pytest.mark.timeout(120)
def test_what_does_not_listen_ends_by_itself_too():
    assert SECONDS < 10, "the promise"
    process = started(LEAVING.format(seconds=1) + DEAF)
    process.send_signal(signal.SIGINT)
    ended(process, within=30)
    assert process.returncode == STATUS


@pytest.mark.timeout(120)
def test_it_ends_though_nobody_reads_what_it_says():
    """`raw2s run c.yaml 2>&1 | tee log`: Ctrl-C ends tee as well."""
    process = started(WAITING)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    process.send_signal(signal.SIGINT)
    try:
        assert process.wait(timeout=10) == STATUS
    finally:
        process.kill()


def test_afterwards_signals_are_as_they_were():
    before, threads = signal.getsignal(signal.SIGINT), len(os.listdir("/proc/self/fd"))
    with ending_on_interrupt("raw2s run"):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.set_wakeup_fd(-1) == -1
    until = time.monotonic() + 60
    while len(os.listdir("/proc/self/fd")) > threads and time.monotonic() < until:
        time.sleep(0.01)
    assert len(os.listdir("/proc/self/fd")) <= threads, "the listener has gone"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_run_in_training_ends_at_the_first_and_says_what_became_of_it(tmp_path):
    """A teacher that trains for long; what was finished before is there."""
    process = start_pipeline(write_config(tmp_path, tiny_run(tmp_path / "runs", **LONG)), job=("-c", PATIENT_JOB))

    def lives() -> None:
        assert process.poll() is None, process.communicate()[0]

    wait_for_a_step(tmp_path / "runs" / "tiny", seconds=200, check=lives)
    process.send_signal(signal.SIGINT)
    out, _ = ended(process, within=90)
    assert process.returncode == STATUS, out
    assert "stopping; what is finished is kept" in out and "Traceback" not in out
    assert list((tmp_path / "runs" / "artifacts").glob("split/*/manifest.json"))
    status = RunStatus.read(tmp_path / "runs" / "tiny")
    assert status is not None and (status.outcome, status.reason) == ("killed", "stopped by Ctrl-C or a signal")
    own = teacher_of(tmp_path / "runs" / "tiny")
    assert own is not None and own.state == "running" and own.steps is not None and 0 < own.steps.done < own.steps.total
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("raw2s").experiment_id])
    left = {run.info.run_name: run.info.status for run in runs}
    assert left["tiny"] == left["teacher/gpt2"] == "KILLED" and left["split"] == "FINISHED"
