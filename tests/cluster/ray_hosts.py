"""A Ray head, its workers and a server that speaks S3, each on a host of its own; hosts share no folder that raw2s is told of."""

import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psutil
import ray
from chaos_nodes import SETTINGS
from cluster_page import BIN, page_command
from network import Network, network
from submitting import once_up
from sweep_demo import wait_until_none

S3, HEAD, WORKERS = "s3", "head", ("one", "two")
PORT = 9000
RAY = {
    "RAY_AUTH_MODE": "token",
    "RAY_prestart_worker_first_driver": "0",
    **SETTINGS,
}
STAY = ["sh", "-c", '"$@" && exec sleep infinity', "sh"]
"""Not `ray start --block`, which ends a node for the least of its processes: Ray's client server, if the head is slow to start."""
RAYLET = str(Path(ray.__file__).parent / "core" / "src" / "ray" / "raylet" / "raylet")
RAY_IS_UP = "Ray runtime started."
UP_SECONDS, GONE_SECONDS = 600.0, 600.0
PUT = re.compile(r'^(\S+) .*"PUT /bucket/([^? ]+)\S* HTTP/1\.1" 200', re.MULTILINE)


class Sent(NamedTuple):
    """A file, or a part of one, that a host has sent to the bucket."""

    host: str
    path: str


@dataclass
class Cluster:
    net: Network
    folder: Path
    running: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    """Ray on its host, or the server, by the host's name; and what follows the job."""
    token: str = field(default_factory=lambda: secrets.token_hex(32))

    def environment(self, host: str) -> dict[str, str]:
        """Of a host's processes: a home, temporary files and copies of its own; credentials and token as on every host."""
        home = self.folder / host
        left_out = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "RAW2S_CACHE", "HF_HOME")
        return {k: v for k, v in os.environ.items() if k not in left_out} | {
            "HOME": str(home), "TMPDIR": str(home / "tmp"), "PYTHONUNBUFFERED": "1",
            "AWS_ENDPOINT_URL": f"http://{self.net.addresses[S3]}:{PORT}", "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", **RAY,
        }  # fmt: skip

    def log(self, host: str) -> str:
        return (self.folder / f"{host}.log").read_text()

    def start_all(self) -> None:
        self._start(S3, str(BIN / "moto_server"), "-H", self.net.addresses[S3], "-p", str(PORT))
        self._start_ray(HEAD, *page_command("ray start --head"), "--num-cpus=0")
        self._up(S3, "Running on")
        self.run(S3, "curl", "--silent", "--fail", "-X", "PUT", f"http://{self.net.addresses[S3]}:{PORT}/bucket")
        self._up(HEAD, RAY_IS_UP)
        self.start_workers(*WORKERS)

    def start_workers(self, *hosts: str) -> None:
        for host in hosts:
            self._start_ray(host, *page_command("ray start --address", {"192.0.2.10": self.net.addresses[HEAD]}), "--num-cpus=3")
        for host in hosts:
            self._up(host, RAY_IS_UP)

    def _start_ray(self, host: str, *command: str) -> None:
        own = [f"--node-ip-address={self.net.addresses[host]}", f"--temp-dir={self.folder / host / 'ray'}"]
        common = ["--object-store-memory=100000000", "--disable-usage-stats"]
        self._start(host, *STAY, *command, *own, *common)

    def _start(self, host: str, *command: str) -> None:
        home = self.folder / host
        for part in ("tmp", ".ray"):
            (home / part).mkdir(parents=True, exist_ok=True)
        (home / ".ray" / "auth_token").write_text(self.token)
        with (self.folder / f"{host}.log").open("w") as log:
            self.running[host] = self.net.start(host, list(command), env=self.environment(host), log=log)

    def _up(self, host: str, line: str) -> None:
        wait_for(lambda: line in self.log(host), lambda: f"{host} is not up: {self.log(host)}", UP_SECONDS)

    def run(self, host: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command on a host to its end; raises TimeoutExpired after ten minutes."""
        with (self.folder / "command.log").open("w") as log:
            process = self.net.start(host, list(command), env=self.environment(host), log=log)
            try:
                status = process.wait(timeout=600)
            finally:
                process.kill()
        output = (self.folder / "command.log").read_text()
        return subprocess.CompletedProcess(command, status, output, output)

    def submit(self, checkout: Path, *job: str) -> subprocess.Popen[str]:
        """Submit a job from the head, and follow its output into `job.log`; the process ends with the job."""
        jobs, address = [str(BIN / "ray"), "job"], ["--address", "http://127.0.0.1:8265"]
        submit = [*jobs, "submit", *address, "--no-wait", "--submission-id=cut", "--working-dir", str(checkout)]
        given = once_up(lambda: self.run(HEAD, *submit, "--", sys.executable, *job))
        assert given.returncode == 0, given.stdout
        with (self.folder / "job.log").open("w") as log:
            follow = [*jobs, "logs", *address, "--follow", "cut"]
            self.running["job"] = self.net.start(HEAD, follow, env=self.environment(HEAD), log=log)
        return self.running["job"]

    def sent(self, path: str) -> list[Sent]:
        """What the bucket has been sent, in order, where all of a file's path matches the pattern."""
        names = {address: host for host, address in self.net.addresses.items()}
        found = [Sent(names[address], file) for address, file in PUT.findall(self.log(S3)) if re.fullmatch(path, file)]
        return list(dict.fromkeys(found))  # a large file comes in parts

    def hosts_of(self, title: str) -> list[str]:
        """The hosts on which processes run whose title begins so."""
        found = []
        for host in self.net.addresses:
            for pid in self.net.processes(host):
                with suppress(psutil.Error):
                    found += [host] * " ".join(psutil.Process(pid).cmdline()).startswith(title)
        return found

    def end_given_up(self, host: str) -> None:
        """Wait until Ray on a host that was cut off has given itself up, and end what it has left."""
        wait_for(lambda: host not in self.hosts_of(RAYLET), lambda: f"Ray on {host} still runs", GONE_SECONDS)
        self.running[host].kill()
        self.running[host].wait()


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """All hosts up; at the end all that ran on them is gone."""
    with network(folder, [S3, HEAD, *WORKERS]) as net:
        made = Cluster(net, folder)
        try:
            made.start_all()
            yield made
        finally:
            for process in made.running.values():
                process.kill()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=30)
            wait_until_none(lambda: [pid for host in net.addresses for pid in net.processes(host)], "processes")


def wait_for(what: Callable[[], object], otherwise: Callable[[], str], seconds: float) -> None:
    """Raises TimeoutError with what `otherwise` says."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise TimeoutError(otherwise())
        time.sleep(0.05)
