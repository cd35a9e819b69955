"""Ray as the pipeline runs on it: a cluster joined, or a local Ray that ends with this process."""

import logging
import os
import socket
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


def start_ray(config: RayConfig, *, dashboard: bool = False) -> None:
    """Join the cluster RAY_ADDRESS names, or start a local Ray that ends with this process.

    Tune needs the dashboard: without its state API an early-stopped sweep never ends. And whoever asks that API must know which
    Ray is his own: beside another one on the machine he would ask the wrong one, or give up, and the sweep would not end either.
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
            options |= {
                "address": "local",  # else it would join, or be refused by, whatever Ray another process has started here
                "num_cpus": config.num_cpus,
                "object_store_memory": config.object_store_mb * 2**20,
                "include_dashboard": dashboard,
                "runtime_env": forked_workers(),
            }
            if dashboard:
                port = free_port()
                os.environ["RAY_GCS_SERVER_PORT"] = str(port)  # Ray's own choice would be known only once its processes run
                address = f"{ray.util.get_node_ip_address()}:{port}"
        if dashboard:
            options["runtime_env"] = options.get("runtime_env", {}) | {"env_vars": {"RAY_ADDRESS": address}}
        try:
            ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            if joined is None:
                raise
            raise ConfigError(no_ray_at(joined, error)) from error
        os.environ.pop("RAY_GCS_SERVER_PORT", None)
    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def free_port() -> int:
    """A port that is free now, on every address of this machine."""
    with socket.socket() as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])
