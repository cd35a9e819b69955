"""The pipeline on several hosts, of which one is cut off in labeling and one in training (`make test-cluster`; minutes)."""

import re
import tempfile
from pathlib import Path

import network
import pytest
import yaml
from chaos import contents
from ray_hosts import HEAD, WORKERS, Cluster, cluster, wait_for
from submitting import make_checkout
from tiny_runs import finish, start_pipeline, tiny_run, write_config

from raw2s.pipeline.run import scores
from raw2s.results import Results

UNITS = r"runs/artifacts/answers/\.\w+\.parts/answers/\w+\.parquet"
CHECKPOINTS = r"runs/artifacts/student/\.\w+\.parts/train/checkpoint_.*"
RUN = {
    "task": {"name": "slurp_slots", "n_teacher": 48, "n_student": 64, "n_validation": 16, "n_test": 24},
    "labeling": {"beams": 2, "max_new_tokens": 24, "batch_size": 4},
    "student_training": {
        "epochs": 8, "keep": "best", "checkpoint_every": 2,
        "workers": 2, "cpus_per_worker": 2,  # of a host's three: one worker on each host
    },
    "methods": [{"method": "bayesian", "loss": {"gamma_max": 0.1}}],
    "ray": {"num_cpus": 6, "parallel_stages": 2},
}  # fmt: skip
SECONDS = 1800.0


@pytest.fixture
def hosts():
    if reason := network.lacking():
        pytest.skip(reason)
    # Ray's sockets lie in it, whose paths are short: pytest's are too deep.
    with tempfile.TemporaryDirectory(prefix="raw2s-hosts-", ignore_cleanup_errors=True) as folder:
        with cluster(Path(folder)) as made:
            yield made
        assert network.there() == []


@pytest.mark.timeout(7200)
def test_a_run_outlives_a_host_cut_off_in_labeling_and_one_in_training(hosts, tmp_path):
    checkout = make_checkout(tmp_path / "checkout")
    (checkout / "configs" / "tiny.yaml").write_text(yaml.safe_dump(tiny_run("s3://bucket/runs", **RUN)))
    job = hosts.submit(checkout, "jobs/full_pipeline.py", "--config", "configs/tiny.yaml")

    def until(what):
        wait_for(lambda: what() or job.poll() is not None, lambda: said(hosts), SECONDS)
        assert job.poll() is None, said(hosts)

    until(lambda: hosts.sent(UNITS))
    first = hosts.sent(UNITS)[0].host
    hosts.net.cut(first)
    assert hosts.hosts_of("ray::Board") == [HEAD]
    before = units(hosts)
    (other,) = set(WORKERS) - {first}
    cut_off = {kind for host, kind in before if host == first}
    until(lambda: any((other, kind) in units(hosts) for kind in cut_off))  # the pass goes on elsewhere
    back(hosts, first)

    until(lambda: len(checkpoints(hosts)) > 1)
    hosts.net.cut(other)
    until(lambda: f"address: {hosts.net.addresses[other]} and node name" in said(hosts))  # Ray holds it for dead
    had = checkpoints(hosts)
    back(hosts, other)
    until(lambda: checkpoints(hosts) - had)  # the training goes on

    job.wait(timeout=SECONDS)
    assert "Job 'cut' succeeded" in said(hosts), said(hosts)
    (copies,) = (hosts.folder / HEAD / ".cache" / "raw2s").glob("s3*")

    alone = start_pipeline(write_config(tmp_path, tiny_run(tmp_path / "runs", **RUN)))
    output = finish(alone, seconds=SECONDS)
    assert alone.returncode == 0, output
    assert scores(Results.read(copies / "runs" / "tiny")) == scores(Results.read(tmp_path / "runs" / "tiny"))
    assert contents(copies) == contents(tmp_path)


def back(hosts: Cluster, host: str) -> None:
    """Plug a host in again: its Ray, which the others hold for dead, ends, and is started anew."""
    hosts.net.join(host)
    hosts.end_given_up(host)
    hosts.start_workers(host)


def units(hosts: Cluster) -> set[tuple[str, str]]:
    """Which host has sent a unit of which labeling pass."""
    return {(sent.host, sent.path.split("/")[3]) for sent in hosts.sent(UNITS)}


def checkpoints(hosts: Cluster) -> set[str]:
    """Of the students' trainings."""
    return {re.search(r"checkpoint_[^/]*", sent.path)[0] for sent in hosts.sent(CHECKPOINTS)}


def said(hosts: Cluster) -> str:
    return (hosts.folder / "job.log").read_text()
