"""Running stages: finished ones are found in the store, the others run, side by side where nothing orders them."""

import logging
import os
import re
import socket
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raw2s.config import RayConfig
from raw2s.errors import StageFailed
from raw2s.pipeline.artifacts import Artifact, ArtifactStore
from raw2s.pipeline.progress import Board, Point, StageDisplay, brief
from raw2s.pipeline.stages import Stage, StageContext

RAY_ENV = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # how soon a finished worker is noticed; Ray's 2 s add up over the stages
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one process less per training run
    "RAY_prestart_worker_first_driver": "0",  # prestarted workers lack the stages' environment and are never used
    "RAY_worker_maximum_startup_concurrency": "12",  # its default, the cores, makes Ray warn of every stage's processes
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # Ray's C++ warnings otherwise cover the progress bars; Python errors are not affected
}
"""Set where the user has not set them, before Ray is imported."""


POINTS_SECONDS = 2.0
"""How often the points of the training curves are asked for."""


@dataclass(frozen=True)
class Done:
    """A stage's artifact, and whether it was found rather than made."""

    artifact: Artifact
    cached: bool


def execute(
    stages: list[Stage],
    store: ArtifactStore,
    display: StageDisplay,
    ray_config: RayConfig,
    on_done: Callable[[Stage, Done], None],
    on_points: Callable[[list[tuple[str, Point]]], None],
) -> dict[str, Done]:
    """Finish every stage (inputs come first in `stages`); results by stage name.

    `on_done` hears of finished stages, `on_points` of the points of training curves as they come; both are called in this thread.

    Raises StageFailed for the first stage that fails, after those running beside it have ended: what they made is kept.
    """
    done: dict[str, Done] = {}
    for stage in stages:
        artifact = store.find(stage.kind, stage.key, display.warn)
        if artifact is not None:
            done[stage.name] = Done(artifact, cached=True)
            display.say(f"{stage.name}: found, {brief(artifact.metrics)}", style="dim")
            on_done(stage, done[stage.name])
    if len(done) == len(stages):
        return done

    start_ray(ray_config)
    display.board = Board.remote()  # type: ignore[attr-defined]
    waiting = [stage for stage in stages if stage.name not in done]
    running: dict[Future[Artifact], Stage] = {}
    failure: StageFailed | None = None
    with ThreadPoolExecutor(ray_config.parallel_stages) as pool:
        while running or (waiting and failure is None):
            if failure is None:
                for stage in [s for s in waiting if all(needed.name in done for needed in s.inputs.values())]:
                    if len(running) < ray_config.parallel_stages:
                        waiting.remove(stage)
                        inputs = {role: done[needed.name].artifact for role, needed in stage.inputs.items()}
                        running[pool.submit(_build, stage, inputs, store, display)] = stage
            finished, _ = wait(running, timeout=POINTS_SECONDS, return_when=FIRST_COMPLETED)
            on_points(display.take_points())
            for future in finished:
                stage = running.pop(future)
                error = future.exception()
                if error is not None:
                    display.finished(stage.name, "failed")
                    failure = failure or StageFailed(
                        f"stage {stage.name} failed: {error if isinstance(error, StageFailed) else _cause(error)}"
                    )
                    failure.__cause__ = failure.__cause__ or error
                    continue
                done[stage.name] = Done(future.result(), cached=False)
                manifest = done[stage.name].artifact.manifest
                display.finished(stage.name, f"done in {manifest['seconds']:.1f} s, {brief(manifest['metrics'])}")
                on_done(stage, done[stage.name])
    on_points(display.take_points())
    if failure is not None:
        raise failure
    return done


def _build(stage: Stage, inputs: dict[str, Artifact], store: ArtifactStore, display: StageDisplay) -> Artifact:
    display.started(stage.name)

    input_keys = {role: needed.key for role, needed in stage.inputs.items()}
    with store.parts(stage.kind, stage.key) as parts:

        def fill(folder: Path) -> dict[str, Any]:
            return stage.run(StageContext(stage.name, inputs, folder, parts, display.board))

        return store.create(stage.kind, stage.key, stage.settings, input_keys, fill)


WRAPPERS = ("RayTaskError", "UserCodeException", "TrainingFailedError", "WorkerGroupError", "ControllerError")
"""Errors that Ray puts around a worker's own."""


def _cause(error: BaseException) -> str:
    """The worker's own error, as `Type: message`: the first in the tracebacks that Ray carries as text."""
    chain: list[BaseException] = []
    seen: BaseException | None = error
    while seen is not None and seen not in chain:
        chain.append(seen)
        seen = getattr(seen, "cause", None) or seen.__cause__
    text = "\n".join(str(e) for e in chain)
    named = re.findall(r"^\s*(?:[\w.]+\.)?([A-Z]\w*(?:Error|Exception)): (\S.*)$", text, re.MULTILINE)
    own = [f"{name}: {message}" for name, message in named if name not in WRAPPERS]
    return own[0] if own else f"{type(error).__name__}: {(str(error) or repr(error)).splitlines()[0]}"


def start_ray(config: RayConfig, *, dashboard: bool = False) -> None:
    """Join the cluster RAY_ADDRESS names, or start a local Ray that ends with this process.

    Tune needs the dashboard: without its state API an early-stopped sweep never ends. And whoever asks that API must know which
    Ray is his own: beside another one on the machine he would ask the wrong one, or give up, and the sweep would not end either.
    Only from the main thread: the local Ray's processes die with the thread that started them.
    """
    for name, value in RAY_ENV.items():
        os.environ.setdefault(name, value)
    import ray  # a second run that finds every stage needs no Ray  # noqa: PLC0415
    import ray.data  # noqa: PLC0415

    if not ray.is_initialized():
        # Worker output stays in Ray's log files; a worker's error comes back with its exception.
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if "RAY_ADDRESS" not in os.environ:
            options |= {
                "address": "local",  # else it would join, or be refused by, whatever Ray another process has started here
                "num_cpus": config.num_cpus,
                "object_store_memory": config.object_store_mb * 2**20,
                "include_dashboard": dashboard,
            }
            if dashboard:
                port = free_port()
                os.environ["RAY_GCS_SERVER_PORT"] = str(port)  # Ray's own choice would be known only once its processes run
                options["runtime_env"] = {"env_vars": {"RAY_ADDRESS": f"{ray.util.get_node_ip_address()}:{port}"}}
        ray.init(**options)
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
