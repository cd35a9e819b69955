"""A local Ray: which doors it opens, that another one beside it is left alone, and what a command says where its processes are killed."""

import subprocess
import sys
from errno import EADDRINUSE, ECONNREFUSED

import pytest
from ray.cluster_utils import Cluster
from ray.dashboard.utils import ray_address_to_api_server_url

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # a busy machine takes minutes to start a Ray
SCRIPT = """
import ipaddress, sys, time
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
    raylet = global_worker.node.all_processes["raylet"][0].process
    if sys.argv[1] == "agent":
        agents = []
        while not agents:  # one that has just started has no title yet
            time.sleep(0.1)
            agents = [own for own in psutil.Process(raylet.pid).children() if "DashboardAgent" in " ".join(own.cmdline())]
        agents[0].kill()
    else:
        raylet.kill()
    ray.get(actor.sleep.remote(100))
"""


@pytest.mark.parametrize("killed", ["raylet", "agent"])
def test_it_listens_on_loopback_alone_and_a_killed_process_of_ray_ends_the_command_with_a_reason(killed):
    found = subprocess.run([sys.executable, "-c", SCRIPT, killed], capture_output=True, text=True, timeout=250)
    doors, _, open_to_others = found.stdout.splitlines()[0].partition(" doors, ")
    assert int(doors) >= 7, "GCS, raylet twice, agents, dashboard, driver"
    assert open_to_others == "0 open to others"
    assert f"Ray's {killed} has ended: something killed it, or memory ran out" in found.stderr
    if killed == "raylet":  # which an agent takes along, and that may end the command first
        assert found.returncode == 143
        assert "raw2s run: stopping; what is finished is kept, and the same command resumes there" in found.stderr


ASKED = """
import socket, urllib.parse
from raw2s.config import RayConfig
from raw2s.pipeline.local_ray import start_ray

start_ray(RayConfig(num_cpus=1))
import ray
from ray.dashboard.utils import ray_address_to_api_server_url

url = urllib.parse.urlsplit(ray_address_to_api_server_url(ray.get_runtime_context().gcs_address))
for attempt in ("connect", "bind"):
    with socket.socket() as other:
        try:
            getattr(other, attempt)((url.hostname, url.port))
            print(attempt, "succeeded")
        except OSError as error:
            print(attempt, type(error).__name__, error.errno)
"""


def test_where_a_ray_without_a_dashboard_says_it_has_one_nobody_else_can_answer():
    """Ray Train asks there whether a training's controller lives; another Ray's dashboard at that port would say that it does not."""
    found = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, timeout=100)
    assert found.stdout.splitlines() == [f"connect ConnectionRefusedError {ECONNREFUSED}", f"bind OSError {EADDRINUSE}"], (
        found.stderr
    )


TRAINING = """
import sys, time
import ray.train
from raw2s.config import RayConfig
from raw2s.pipeline.local_ray import start_ray

if __name__ == "__main__":
    start_ray(RayConfig(num_cpus=2))
    from ray.train.torch import TorchTrainer
    TorchTrainer(lambda: time.sleep(8), run_config=ray.train.RunConfig(name="train", storage_path=sys.argv[1])).fit()
"""
"""Long enough for Ray Train to ask several times whether the training's controller lives."""


def test_a_training_is_its_own_beside_another_ray(tmp_path):
    """Ray's processes look for the machine's latest `ray start` where they are not told which Ray is theirs."""
    other = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80 * 2**20})
    try:
        assert ray_address_to_api_server_url(other.address), "it answers who asks it"
        found = subprocess.run([sys.executable, "-c", TRAINING, str(tmp_path)], capture_output=True, text=True, timeout=250)
    finally:
        other.shutdown()
    assert found.returncode == 0, found.stderr
