"""Ray as the pipeline runs on it: a cluster joined, or a local Ray that ends with this process."""

import atexit
import logging
import os
import re
import select
import signal
import socket
import sys
import threading
from contextlib import suppress
from typing import Any

from raw2s.config import RayConfig
from raw2s.errors import ConfigError
from raw2s.forking.start import forked_workers
from raw2s.pipeline.ray_address import check_ray_address, no_ray_at

RAY_ENV = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # how soon a finished worker is noticed; Ray's 2 s add up over the stages
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one process less per training run
    "RAY_prestart_worker_first_driver": "0",  # prestarted workers lack the stages' environment and are never used
    "RAY_worker_maximum_startup_concurrency": "12",  # its default, the cores, makes Ray warn of every stage's processes
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # Ray's C++ warnings otherwise cover the progress bars; Python errors are not affected
}
"""Set where the user has not set them, before Ray is imported."""
ALONE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""0 makes a Ray of one machine: all its processes listen on 127.0.0.1 in place of every address (docs/security.md)."""
OWN_PROCESSES = ("raylet", "gcs_server")
"""Of a local Ray those without which nothing goes on, beside the raylet's agents, which take it with them."""
HELD: list[socket.socket] = []
"""Ports of this process, closed when it ends."""
AGENT = re.compile(r"ray::\w*Agent *|.*/agent(/main)?\.py")
"""Of an agent's command line one of the first words: its title, or the script that it starts with."""


def start_ray(config: RayConfig, *, dashboard: bool = False) -> None:
    """Join the cluster RAY_ADDRESS names, or start a local Ray that ends with this process.

    Tune needs the dashboard: without its state API an early-stopped sweep never ends. Workers are told which Ray is theirs: beside
    another one on the machine they would ask that one's state API. A sweep would not end; and Ray Train, hearing that its controller
    does not live, would remove the placement group of a training that runs.
    Only from the main thread: the local Ray's processes die with the thread that started them. Raises ConfigError for a cluster
    that cannot be joined.
    """
    joined = os.environ.get("RAY_ADDRESS") or None
    check_ray_address(joined)
    for name, value in RAY_ENV.items():
        os.environ.setdefault(name, value)
    import ray  # a second run that finds every stage needs no Ray  # noqa: PLC0415
    import ray.data  # noqa: PLC0415

    if not ray.is_initialized():
        # Worker output stays in Ray's log files; a worker's error comes back with its exception.
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        address = joined
        if joined is None:
            _stay_on_loopback()
            door = free_port()  # written down even where no dashboard listens; at Ray's default another Ray's may
            options |= {
                "address": "local",  # else it would join, or be refused by, whatever Ray another process has started here
                "num_cpus": config.num_cpus,
                "object_store_memory": config.object_store_mb * 2**20,
                "include_dashboard": dashboard,
                "dashboard_port": door,
                "runtime_env": forked_workers(),
            }
            port = free_port()
            os.environ["RAY_GCS_SERVER_PORT"] = str(port)  # Ray's own choice would be known only once its processes run
            address = f"{ray.util.get_node_ip_address()}:{port}"
        options["runtime_env"] = options.get("runtime_env", {}) | {"env_vars": {"RAY_ADDRESS": address}}
        try:
            ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            if joined is None:
                raise
            raise ConfigError(no_ray_at(joined, error)) from error
        os.environ.pop("RAY_GCS_SERVER_PORT", None)
        if joined is None and not dashboard:
            _keep_shut(door)
        if joined is None and sys.platform == "linux":  # whose processes can be waited for by others than their parents
            _end_with_ray()
    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # of a teacher that waits for its turn on a device, or is slow: no failure


def _keep_shut(port: int) -> None:
    """Hold a port at which nobody listens until this process ends, so that no other Ray's dashboard can come to answer there."""
    held = socket.socket()
    with suppress(OSError):  # one of Ray's own connections has got it meanwhile, and holds it as well
        held.bind(("", port))
    HELD.append(held)


def _stay_on_loopback() -> None:
    from ray._private import ray_constants  # noqa: PLC0415

    os.environ.setdefault(ALONE, "0")  # for Ray's own processes
    ray_constants.ENABLE_RAY_CLUSTER = os.environ[ALONE] != "0"  # which this process has read when it imported Ray


def _end_with_ray() -> None:
    """End this process, as SIGTERM does, where Ray's own processes have gone: Ray says nothing for a minute, or ends it without a word."""
    import psutil  # noqa: PLC0415
    import ray  # noqa: PLC0415
    from ray._private.worker import global_worker  # noqa: PLC0415

    assert global_worker.node is not None, "this process has started it"
    own = {name: global_worker.node.all_processes[name][0].process.pid for name in OWN_PROCESSES}
    children = psutil.Process(own["raylet"]).children()
    agents = [child.pid for child in children if any(map(AGENT.fullmatch, child.cmdline()[:3]))]
    # Of several that have ended by then the first is named: an agent takes the raylet with it at once, the raylet its agents later.
    watched = {os.pidfd_open(pid): "agent" for pid in agents} | {os.pidfd_open(pid): name for name, pid in own.items()}
    leaving = threading.Event()
    atexit.register(leaving.set)  # before Ray's own, which end them

    def watch() -> None:
        ended, _, _ = select.select(list(watched), [], [])
        if ray.is_initialized() and not leaving.is_set():
            print(f"\nRay's {watched[ended[0]]} has ended: something killed it, or memory ran out", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def free_port() -> int:
    """A port that is free now, on every address of this machine."""
    with socket.socket() as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])
