"""A local Ray: which doors it opens, and what a command says where Ray's own processes are killed."""

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
SCRIPT = """
import ipaddress, sys
import psutil
from raw2s.config import RayConfig
from raw2s.interrupt import ending_on_interrupt
from raw2s.pipeline.local_ray import start_ray

with ending_on_interrupt("raw2s run"):
    start_ray(RayConfig(num_cpus=2), dashboard=True)
    import ray
    from ray._private.worker import global_worker

    @ray.remote
    class Actor:
        def sleep(self, seconds):
            import time
            time.sleep(seconds)

    actor = Actor.remote()
    ray.get(actor.sleep.remote(0))
    me = psutil.Process()
    doors = [c.laddr.ip for p in (me, *me.children(recursive=True)) for c in p.net_connections("tcp") if c.status == "LISTEN"]
    loopback = ipaddress.ip_network("127.0.0.0/8")
    addresses = [ipaddress.ip_address(ip) for ip in doors]
    addresses = [getattr(ip, "ipv4_mapped", None) or ip for ip in addresses]
    print(len(doors), "doors,", sum(ip not in loopback for ip in addresses), "open to others", flush=True)
    global_worker.node.all_processes["raylet"][0].process.kill()
    ray.get(actor.sleep.remote(100))
"""


def test_it_listens_on_loopback_alone_and_a_killed_raylet_ends_the_command_with_a_reason():
    found = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=100)
    doors, _, open_to_others = found.stdout.splitlines()[0].partition(" doors, ")
    assert int(doors) >= 7, "GCS, raylet twice, agents, dashboard, driver"
    assert open_to_others == "0 open to others"
    assert found.returncode == 143
    assert "Ray's raylet has ended: something killed it, or memory ran out" in found.stderr
    assert "raw2s run: stopping; what is finished is kept, and the same command resumes there" in found.stderr
