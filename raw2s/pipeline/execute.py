"""Running stages: finished ones are found in the store, the others run, side by side where nothing orders them."""

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raw2s.config import RayConfig
from raw2s.errors import ConfigError, StageFailed
from raw2s.pipeline.artifacts import Artifact
from raw2s.pipeline.every_node import require_alike
from raw2s.pipeline.failures import reason_of
from raw2s.pipeline.local_ray import start_ray
from raw2s.pipeline.progress import Point, StageDisplay, State, brief, open_board
from raw2s.pipeline.remote_store import Store
from raw2s.pipeline.resources import cluster_nodes, lacking
from raw2s.pipeline.stage import Stage, Work

POINTS_SECONDS = 2.0
"""How often the board is asked how far the stages are."""


@dataclass(frozen=True)
class Done:
    """A stage's artifact, and whether it was found rather than made."""

    artifact: Artifact
    cached: bool


class Listener:
    """Is told how the stages come on, in the thread of `execute`; whoever listens says what it does with what it needs."""

    def started(self, stage: Stage) -> None:
        """It runs; of one that was found nothing is heard before `done`."""

    def done(self, stage: Stage, done: Done) -> None: ...

    def failed(self, stage: Stage, reason: str) -> None: ...

    def progressed(self, states: dict[str, State], points: list[tuple[str, Point]]) -> None:
        """How far the stages are, by name, and the new points of training curves; every `POINTS_SECONDS`, and at the end."""


SILENT = Listener()


def execute(
    stages: list[Stage], *, store: Store, display: StageDisplay, ray_config: RayConfig, listener: Listener = SILENT
) -> dict[str, Done]:
    """Finish every stage (inputs come first in `stages`); results by stage name.

    Raises StageFailed for the first stage that fails, after those running beside it have ended: what they made is kept; ConfigError,
    before any stage starts, for one that Ray has no place for, and for nodes that are not alike. Ctrl-C waits for none.
    """
    done = _found(stages, store, display)
    for stage in stages:
        if stage.name in done:
            listener.done(stage, done[stage.name])
    if len(done) == len(stages):
        return done

    start_ray(ray_config)
    waiting = [stage for stage in stages if stage.name not in done]
    _require_places(waiting)
    require_alike(store.root)
    display.board, display.seen = open_board(), 0
    running: dict[Future[Artifact], Stage] = {}
    failure: StageFailed | None = None
    pool = ThreadPoolExecutor(ray_config.parallel_stages)
    try:
        while running or (waiting and failure is None):
            if failure is None:
                for stage in [s for s in waiting if all(needed.name in done for needed in s.inputs.values())]:
                    if len(running) < ray_config.parallel_stages:
                        waiting.remove(stage)
                        inputs = {needed.key: done[needed.name].artifact for needed in stage.inputs.values()}
                        display.started(stage.name)
                        listener.started(stage)
                        running[pool.submit(_build, stage, inputs, store, display)] = stage
            finished, _ = wait(running, timeout=POINTS_SECONDS, return_when=FIRST_COMPLETED)
            listener.progressed(*display.progress())
            for future in finished:
                stage = running.pop(future)
                error = future.exception()
                if error is not None:
                    reason = reason_of(error, store.root)
                    display.finished(stage.name, "failed")
                    listener.failed(stage, reason)
                    failure = failure or StageFailed(f"stage {stage.name} failed: {reason}")
                    failure.__cause__ = failure.__cause__ or error
                    continue
                done[stage.name] = Done(future.result(), cached=False)
                manifest = done[stage.name].artifact.manifest
                display.finished(stage.name, f"done in {manifest['seconds']:.1f} s, {brief(manifest['metrics'])}")
                listener.done(stage, done[stage.name])
    finally:
        # Stages still run on Ctrl-C, which ends the process, and where something other than a stage failed: Python then ends
        # after them, and what they made is kept.
        pool.shutdown(wait=False)
    listener.progressed(*display.progress())
    if failure is not None:
        raise failure
    return done


def _found(stages: list[Stage], store: Store, display: StageDisplay) -> dict[str, Done]:
    """The stages that are finished already, by name."""
    done = {}
    for stage in stages:
        artifact = store.find(stage.kind, stage.key, display.warn)
        if artifact is not None:
            done[stage.name] = Done(artifact, cached=True)
            display.say(f"{stage.name}: found, {brief(artifact.metrics)}", style="dim")
    return done


def _require_places(stages: list[Stage]) -> None:
    nodes = cluster_nodes()
    for stage in stages:
        if problem := lacking(stage, nodes):
            raise ConfigError(problem)


def _build(stage: Stage, inputs: dict[str, Artifact], store: Store, display: StageDisplay) -> Artifact:
    with store.parts(stage.kind, stage.key) as parts:
        return build(stage, store, Work(inputs=inputs, parts=parts, board=display.board, warn=display.warn))


def build(stage: Stage, store: Store, work: Work) -> Artifact:
    """Run a stage into the store, whatever may be there; `work.out` is the new artifact's folder."""

    def fill(folder: Path) -> dict[str, Any]:
        given = replace(work, out=folder, earlier=store.finished, lent=[])
        metrics = stage.run(given)
        return {"metrics": metrics, "lent_by": given.lent} if given.lent else {"metrics": metrics}

    described = {"version": stage.version, "settings": stage.settings, "inputs": stage.input_keys}
    return store.create(stage.kind, stage.key, described, fill)
