"""How far a run is: what its status file says, whether its process lives, and `raw2s status`."""

import io
import subprocess
import sys
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from raw2s.cli import main
from raw2s.report.progress import status_table
from raw2s.status import SHOWN_SHARE, SILENT_SECONDS, Process, RunStatus, StageStatus, Steps

NOW = 1e9


def stage(name, **changes) -> StageStatus:
    return StageStatus(**{"name": name, "key": "k", "folder": f"artifacts/{name}/k"} | changes)


def run_status(at: float | None = None, **changes) -> RunStatus:
    at = time.time() if at is None else at
    given = {
        "run": "demo",
        "outcome": "running",
        "process": Process.own(),
        "started": at - 100,
        "updated": at,
        "command": "raw2s demo",
    }
    return RunStatus(**given | {"tracked": {}, "stages": [stage("split")]} | changes)


def steps(done, total, first=0) -> Steps:
    return Steps(done=done, total=total, note="", first=first, first_time=NOW)


def shown(status: RunStatus) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(status_table(status, NOW))
    return console.file.getvalue()


def test_a_process_lives_until_it_is_dead_and_a_later_one_with_its_number_is_another():
    own = Process.own()
    assert own.lives and own.here
    assert not own.model_copy(update={"started": "1"}).lives
    child = subprocess.Popen([sys.executable, "-c", "from raw2s.status import Process; print(Process.own().model_dump_json(), flush=True); input()"],
                             stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)  # fmt: skip
    assert child.stdout is not None
    process = Process.model_validate_json(child.stdout.readline())
    running = run_status(process=process)
    assert (process.pid, running.now()) == (child.pid, "running")
    child.kill()
    until = time.monotonic() + 60
    while process.lives and time.monotonic() < until:
        time.sleep(0.01)
    assert running.now() == "killed", "though nobody has waited for it"
    child.communicate()
    assert running.now() == "killed"
    assert running.model_copy(update={"outcome": "done"}).now() == "done"


def test_a_process_on_another_machine_counts_as_dead_when_it_is_silent():
    elsewhere = run_status(process=Process(host="another", pid=1, started="1"), updated=NOW)
    assert elsewhere.now(NOW + SILENT_SECONDS - 1) == "running"
    assert elsewhere.now(NOW + SILENT_SECONDS + 1) == "killed"


@given(st.integers(0, 1000), st.integers(1, 1000), st.integers(1, 1000), st.floats(1, 1e5))
def test_what_is_left_goes_on_at_the_pace_of_this_run_alone(first, made, rest, seconds):
    left = stage("label", state="running", steps=steps(first + made, first + made + rest, first)).left(NOW + seconds)
    if made < SHOWN_SHARE * (made + rest):
        assert left is None
    else:
        assert left == pytest.approx(seconds / made * rest)


def test_nothing_is_left_to_tell_of_a_stage_without_progress_or_that_has_ended():
    assert stage("fit", state="running").left(NOW) is None
    assert stage("label", state="running", steps=steps(5, 5)).left(NOW + 9) is None
    assert stage("label", state="done", steps=steps(3, 5)).left(NOW + 9) is None


def test_the_file_is_replaced_as_a_whole_and_read_again(tmp_path):
    assert RunStatus.read(tmp_path) is None
    for status in (run_status(), run_status(outcome="failed", reason="no\nluck")):
        status.write(tmp_path)
        assert RunStatus.read(tmp_path) == status
    assert [file.name for file in tmp_path.iterdir()] == ["status.json"]
    (tmp_path / "status.json").write_text("{")
    assert RunStatus.read(tmp_path) is None


def test_every_stage_has_a_row_that_says_what_it_does():
    stages = [
        stage("split", state="done", cached=True, seconds=2.0),
        stage("teacher/[red]opt", state="done", seconds=75.0),
        stage("label", state="running", started=NOW - 30, steps=steps(30, 60).model_copy(update={"first_time": NOW - 20})),
        stage("ceiling", state="failed", seconds=5.0, reason="the loss is nan"),
        stage("test/ceiling"),
    ]  # fmt: skip
    text = shown(run_status(NOW, stages=stages))
    rows = {line.split("  ")[0].strip(): " ".join(line.split()) for line in text.splitlines()}
    assert "demo: running for 1 min 40 s" in text and "2 of 5 stages done, 1 of them cached" in text
    assert rows["split"] == "split cached 2.0 s then"
    assert rows["teacher/[red]opt"] == "teacher/[red]opt done 1 min 15 s", "what is in names is no markup"
    assert rows["label"] == "label running 30/60 30.0 s about 20.0 s"
    assert rows["ceiling"] == "ceiling failed 5.0 s"
    assert rows["test/ceiling"] == "test/ceiling waiting"
    assert "ceiling failed: the loss is nan" in text
    text = shown(run_status(NOW, stages=stages, outcome="killed", reason="stopped by Ctrl-C or a signal"))
    assert "label cut off 30/60" in " ".join(text.split()) and "test/ceiling not begun" in " ".join(text.split())
    assert "about" not in text, "nothing goes on"


DEAD = Process(host=Process.own().host, pid=2**22 + 1, started="1")


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"outcome": "done"}, 0, "demo: done"),
        ({}, 3, "demo: running"),
        ({"outcome": "failed", "reason": "stage label failed: no room"}, 4, "stage label failed: no room"),
        ({"outcome": "killed", "reason": "stopped by Ctrl-C or a signal"}, 4, "demo: stopped by Ctrl-C"),
        ({"process": DEAD}, 4, "demo: killed"),
    ],
)
@pytest.mark.parametrize("named", ["the run", "the config"])
@pytest.mark.parametrize("kind", ["disk", "objects"])
def test_the_exit_status_says_what_became_of_the_run(tmp_path, capsys, request, changes, code, said, named, kind):
    storage = tmp_path if kind == "disk" else request.getfixturevalue("bucket") / tmp_path.name
    run_status(**changes).write(storage / "demo")
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump({"name": "other", "storage": str(storage), "student": {"model": "m"}, "teachers": [{"name": "a", "model": "m"}]}))  # fmt: skip
    arguments = [str(storage / "demo")] if named == "the run" else [str(config), "--set", "name=demo"]
    assert main(["status", *arguments]) == code
    assert said in " ".join(capsys.readouterr().out.split())


def test_watching_ends_with_the_run(tmp_path, capsys, monkeypatch):
    run_status().write(tmp_path)
    monkeypatch.setattr(time, "sleep", lambda seconds: run_status(outcome="done").write(tmp_path))
    assert main(["status", str(tmp_path), "--watch", "7"]) == 0
    said = capsys.readouterr().out
    assert said.index("demo: running for") < said.index("demo: done")


def test_the_models_that_are_there_are_listed(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "artifacts" / "student" / "k" / "model").mkdir(parents=True)
    run_status(outcome="done", stages=[stage("split", state="done"), stage("student", state="done")]).write(tmp_path / "run")
    assert main(["status", str(tmp_path / "run"), "--models"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"student: {tmp_path}/artifacts/student/k/model"


def test_a_folder_without_a_status_is_a_mistake_in_one_line(tmp_path, capsys):
    assert main(["status", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"raw2s status: {tmp_path}: no status.json that this version reads; give the folder of a run, <storage>/<name>\n"
    )


def test_a_run_of_which_a_store_knows_nothing_is_one_line(bucket, capsys):
    assert main(["status", str(bucket / "nobody")]) == 2
    assert f"{bucket / 'nobody'}: no status.json" in capsys.readouterr().err
