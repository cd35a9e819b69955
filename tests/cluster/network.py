"""Hosts on one machine: network namespaces, each with a cable (a veth pair) to a switch (a bridge, in a namespace of its own).

A host has its own address, name, /etc/hosts and process numbers, and no way to any other network: nor has the machine one to it.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

PREFIX = f"raw2s-test-{os.getpid()}-"
SUBNET = "10.77.0"
TOOLS = {"ip": "iproute2", "unshare": "util-linux", "mount": "util-linux"}
AS_HOST = 'hostname "$1" && mount --bind "$2" /etc/hosts && shift 2 && exec "$@"'


def lacking() -> str | None:
    """Why no hosts can be made here; None where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root (sudo make test-cluster)"
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            return f"{tool} is not installed (Debian: apt-get install {package})"
    try:
        with network(Path("/"), []):
            return None
    except subprocess.CalledProcessError as error:
        return f"no network namespaces here: {error.stderr.strip()}"


@dataclass(frozen=True)
class Network:
    """Its hosts are there, with nothing on them."""

    hosts_file: Path
    addresses: dict[str, str]
    """By a host's name."""

    def start(self, host: str, command: list[str], *, env: dict[str, str], log: IO[str]) -> subprocess.Popen[str]:
        """A process on a host, in numbers of its own: kill it, and all that it has started is killed with it."""
        numbers = ["unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        inside = ["sh", "-c", AS_HOST, "sh", host, str(self.hosts_file), *command]
        return subprocess.Popen(
            ["ip", "netns", "exec", PREFIX + host, *numbers, *inside], env=env, stdout=log, stderr=subprocess.STDOUT, text=True
        )

    def cut(self, host: str) -> None:
        """Pull its cable. What runs on it goes on and reaches nobody."""
        _ip("-n", f"{PREFIX}switch", "link", "set", host, "down")

    def join(self, host: str) -> None:
        """Plug it in again."""
        _ip("-n", f"{PREFIX}switch", "link", "set", host, "up")

    def processes(self, host: str) -> list[int]:
        """What runs on a host, by the machine's own process numbers."""
        return [int(pid) for pid in _ip("netns", "pids", PREFIX + host).split()]


@contextmanager
def network(folder: Path, hosts: list[str]) -> Iterator[Network]:
    """A switch and the hosts on it; at the end both are gone. What runs on a host then must have been ended before."""
    addresses = {host: f"{SUBNET}.{number}" for number, host in enumerate(hosts, start=1)}
    try:
        _ip("netns", "add", f"{PREFIX}switch")
        _ip("-n", f"{PREFIX}switch", "link", "add", "bridge", "type", "bridge")
        _ip("-n", f"{PREFIX}switch", "link", "set", "bridge", "up")
        for host, address in addresses.items():
            _ip("netns", "add", PREFIX + host)
            _ip("-n", PREFIX + host, "link", "set", "lo", "up")
            _ip("link", "add", "eth0", "netns", PREFIX + host, "type", "veth", "peer", "name", host, "netns", f"{PREFIX}switch")
            _ip("-n", PREFIX + host, "address", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", PREFIX + host, "link", "set", "eth0", "up")
            _ip("-n", f"{PREFIX}switch", "link", "set", host, "master", "bridge", "up")
        hosts_file = folder / "hosts"
        if hosts:
            hosts_file.write_text("127.0.0.1 localhost\n" + "".join(f"{ip} {name}\n" for name, ip in addresses.items()))
        yield Network(hosts_file, addresses)
    finally:
        for name in there():
            _ip("netns", "delete", name)


def there() -> list[str]:
    """The namespaces of this process."""
    return [line.split()[0] for line in _ip("netns", "list").splitlines() if line.startswith(PREFIX)]


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout
