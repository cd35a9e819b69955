"""Bad clusters, through the command line: one line within a minute, before anything starts, as docs/cluster.md has it.

`pytest -rP tests/test_bad_clusters.py` prints every message with its seconds.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray
import yaml
from closed_port import NOBODY
from faked_runs import fake_models
from ray.cluster_utils import Cluster
from tiny_runs import ROOT, tiny_run, write_config

from raw2s.cli import main
from raw2s.pipeline.local_ray import free_port
from raw2s.pipeline.progress import StageDisplay
from raw2s.pipeline.resources import Node

SECONDS = 60.0
REAL_SECONDS = 200.0
"""On real nodes, each of which must start a process first: within a minute as well, but not on a machine that others keep busy."""
PAGE = (ROOT / "docs" / "cluster.md").read_text()
LOWER = (
    "; lower workers, cpus_per_worker or gpus_per_worker of its training, or give Ray more (ray.num_cpus of a local one, RAY_ADDRESS "
    "for a larger cluster)"
)


@dataclass(frozen=True)
class Bad:
    """What is asked of which cluster, by changes of a good run; what is said of it, `...` standing for anything."""

    said: str
    fixture: str = ""
    """That makes the cluster or the storage, and gives the storage's name."""
    changes: Callable[[], dict[str, object]] = dict


def workers(**training: object) -> Callable[[], dict[str, object]]:
    return lambda: {"teacher_training": {"batch_size": 12, "micro_batch_size": 2, **training}}


BAD = {
    "no GPU where one is asked for": Bad(
        "stage teacher/gpt2: a training worker asks for 1 CPU, 1 GPU, and Ray has 2 CPU, 0 GPU over 2 nodes" + LOWER,
        "two_nodes",
        workers(gpus_per_worker=1),
    ),
    "one node too few": Bad(
        "stage teacher/gpt2: 3 training workers ask for 1 CPU each, and Ray has 2 CPU over 2 nodes" + LOWER,
        "two_nodes",
        workers(workers=3),
    ),
    "a full disk": Bad("storage: ... is no folder that can be written (No space left on device); name another", "full_disk"),
    "a wrong S3 key": Bad(
        "storage: s3://bucket/runs cannot be written and read (...); correct the bucket, or the credentials and the endpoint in the "
        "environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and the like)",
        "wrong_key",
    ),
    "unequal package versions on a node": Bad(
        "RAY_ADDRESS: node ... has numpy 1.0 where this machine has ...; install the same versions on every node: "
        "pip install -c constraints.txt .",
        "two_nodes",
    ),
    "a dead RAY_ADDRESS": Bad(
        "RAY_ADDRESS: no Ray to join at 127.0.0.1:... (... Connection refused); start it, correct the address, or unset it to start a "
        "local Ray",
        "dead_address",
    ),
    "a storage path that one node does not see": Bad(
        "storage: ... is not seen from ... of 2 nodes; name a storage that every node sees, or a URI", "hidden_folder"
    ),
}
FILLS = (
    "stage ... failed: a disk has no room for what it writes (... No space left on device): here ... has ... MiB free, ... MiB free; "
    "make room, and run the same command again, which goes on from what is finished"
)
REAL = ("two_nodes", "hidden_folder")


def pattern(said: str) -> str:
    return re.escape(said).replace(re.escape("..."), ".*")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Two nodes of one CPU. The second has a numpy of its own, and another folder at the path that is given with the address."""
    folder = tmp_path_factory.mktemp("cluster")
    (hidden := folder / "hidden").mkdir()
    (folder / "numpy-1.0.dist-info").mkdir()
    (folder / "numpy-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.0\n")
    ray.shutdown()
    head = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80 * 2**20})
    log = (folder / "second.log").open("w")

    def start() -> subprocess.Popen[bytes]:
        node = (
            f"exec {sys.executable} -m ray.scripts.scripts start --address={head.address} --num-cpus=1 "
            "--object-store-memory=80000000 --min-worker-port=0 --max-worker-port=0 --include-log-monitor=false --block "
            f"--dashboard-agent-listen-port={free_port()}"
        )
        command = ["sh", "-c", node]
        if os.geteuid() == 0:
            command = ["unshare", "--mount", "sh", "-c", f"mount -t tmpfs none {hidden} && {node}"]
        path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}, stdout=log, stderr=subprocess.STDOUT)

    second, starts = start(), 1
    try:
        while sum(node["Alive"] for node in head.global_state.node_table()) < 2:
            if second.poll() is not None:  # Ray gives its processes so many seconds to start, which a busy machine may not have
                assert starts < 3, (folder / "second.log").read_text()
                second, starts = start(), starts + 1
            time.sleep(0.2)
        yield head.address, hidden
    finally:
        ray.shutdown()
        second.terminate()
        second.wait(timeout=60)
        log.close()
        head.shutdown()


@pytest.fixture
def two_nodes(cluster, monkeypatch) -> str:
    monkeypatch.setenv("RAY_ADDRESS", cluster[0])
    return "runs"


@pytest.fixture
def hidden_folder(cluster, monkeypatch) -> str:
    if os.geteuid() != 0:
        pytest.skip("only root can give a node another disk")
    monkeypatch.setenv("RAY_ADDRESS", cluster[0])
    return str(cluster[1] / "runs")


@pytest.fixture
def dead_address(monkeypatch) -> str:
    monkeypatch.setenv("RAY_ADDRESS", NOBODY)
    return "runs"


@pytest.fixture
def wrong_key(bucket, monkeypatch) -> str:
    """moto asks whether a key may do what it does once there are no more actions that it lets pass."""
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)
    return "s3://bucket/runs"


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """Of 4 MiB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk")
    (disk := tmp_path / "disk").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)  # MLflow holds its database


@pytest.fixture
def full_disk(small_disk) -> str:
    (small_disk / "other").write_bytes(bytes(4 * 2**20 - 100_000))
    return str(small_disk / "runs")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if bad.fixture in REAL else []) for name, bad in BAD.items()]
)
@pytest.mark.timeout(600)  # two nodes start before the first
def test_a_bad_cluster_is_one_line_within_a_minute_and_starts_nothing(name, folder, request, capsys):
    bad = BAD[name]
    storage = request.getfixturevalue(bad.fixture)
    (folder / "config.yaml").write_text(yaml.safe_dump(tiny_run(storage, **bad.changes())))
    capsys.readouterr()
    start = time.monotonic()
    status = main(["run", "config.yaml"])
    seconds = time.monotonic() - start
    err = capsys.readouterr().err
    print(f"{seconds:5.1f} s  {err}", end="")
    assert status == 2
    assert re.fullmatch("raw2s run: " + pattern(bad.said) + "\n", err)
    assert seconds < (REAL_SECONDS if bad.fixture in REAL else SECONDS)
    assert not list(Path(storage).glob("artifacts/*/*"))


def test_the_page_has_every_bad_cluster_with_its_line():
    rows = {name: bad.said for name, bad in BAD.items()} | {"a disk that fills during a run": FILLS}
    for name, said in rows.items():
        assert f"| {name} | `{said}` |" in PAGE


def large(job, out, parts, **_):
    """Stands for a training run: a curve of one point, and a model of which a small disk holds one."""
    (out / "history.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    (out / "model.bin").write_bytes(bytes(2 * 2**20))
    return {"final_loss": 2.0, "epoch_kept": 1}


def test_a_disk_that_fills_is_one_line_and_the_run_goes_on_once_there_is_room(small_disk, folder, monkeypatch, capsys):
    """Everything but Ray: stages are made here, with faked models."""
    fake_models(monkeypatch)
    monkeypatch.setattr("raw2s.training.fit.fit", large)
    for what in ("start_ray", "require_alike", "open_board"):
        monkeypatch.setattr(f"raw2s.pipeline.execute.{what}", lambda *_: None)
    monkeypatch.setattr("raw2s.pipeline.execute.cluster_nodes", lambda: [Node(resources={"CPU": 8}, labels={})])
    monkeypatch.setattr(StageDisplay, "progress", lambda self: ({}, []))
    task = {"name": "slurp_scenario", "n_teacher": 48, "n_student": 24, "n_validation": 16, "n_test": 24}
    config = write_config(folder, tiny_run(small_disk / "runs", task=task, methods=[{}], ray={"parallel_stages": 1}))

    start = time.monotonic()
    assert main(["run", str(config)]) == 1
    assert time.monotonic() - start < SECONDS
    told = capsys.readouterr()
    assert re.fullmatch("raw2s run: " + pattern(FILLS.replace("stage ...", "stage teacher/opt", 1)) + "\n", told.err)
    kept = {file.parent for file in (small_disk / "runs" / "artifacts").glob("*/*/manifest.json")}
    assert kept
    assert {made.name for made in (small_disk / "runs" / "artifacts").glob("*/*")} == {made.name for made in kept}

    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert main(["run", str(config)]) == 0
    again = capsys.readouterr().out
    assert "teacher/gpt2: found" in again
    assert "teacher/opt: done" in again
