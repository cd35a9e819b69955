"""More teachers than devices, over more and more nodes: labeling time a row, and what of it a node more takes away.

    python benchmarks/placement.py [PART ...] [--out benchmarks/results/placement.json]

A node is a raylet of this machine with one device, a custom resource of Ray. A teacher's actor holds a device and sleeps where its model
would compute, so the machine's cores are not what is measured. All else is a run's: `execute` with every teacher's beams and the label
table over all of them, units as files, actors where Ray puts them. Workers are forked, as those of a local Ray are: unlike the
processes of several machines, they would all start on the same cores.
"""

import json
import os
import sys
import tempfile
import time
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import harness
import ray
from label_stage import labeling
from ray.cluster_utils import Cluster
from rich.console import Console

from raw2s.config import Decoding, RayConfig
from raw2s.forking.start import forked_workers
from raw2s.labeling.prompts import Unit
from raw2s.labeling.units import Pool
from raw2s.labels.table import Answer
from raw2s.pipeline.artifacts import ArtifactStore
from raw2s.pipeline.execute import Done, Listener, execute
from raw2s.pipeline.local_ray import RAY_ENV
from raw2s.pipeline.progress import StageDisplay
from raw2s.pipeline.stage import Stage, inputs_first
from raw2s.section import Actors
from raw2s.tasks import task_of
from raw2s.tasks.slurp_slots import SlotsSection

TEACHERS = (4, 8, 16)
NODES = (1, 2, 4)
ROWS = 40
BATCH = 10
PASSES = 2
"""A teacher's: beams and scores."""
PARTS = {"8 s": 1.0, "24 s": 3.0}
"""Seconds of device time of a batch, generated or scored; named after a teacher's in all its batches and passes."""
STORE = 80 * 2**20
"""Bytes of a node's object store."""


class SleepingBeams:
    """In place of `BeamActor`."""

    def __init__(self, seconds: float, pool: Pool, beams: int, max_new_tokens: int) -> None:
        self.seconds, self.name = seconds, pool.name

    def __call__(self, unit: Unit) -> list[Answer]:
        time.sleep(self.seconds)
        texts = [[f"{prompt} {self.name}"] for prompt in unit["prompts"]]
        return [{"texts": own, "logprobs": [-1.0], "tokens": [1], "ended": [True]} for own in texts]


class SleepingScores:
    """In place of `ScoreActor`."""

    def __init__(self, seconds: float, pool: Pool) -> None:
        self.seconds = seconds

    def __call__(self, unit: Unit) -> list[Answer]:
        time.sleep(self.seconds)
        return [
            {"words": [[-1.0] * (len(text.split()) + 1) for text in texts], "tokens": [1] * len(texts)}
            for texts in unit["candidates"]
        ]


class Clock(Listener):
    """From the start of the first teacher's beams to the label table."""

    began = ended = 0.0

    def started(self, stage: Stage) -> None:
        if stage.name.startswith("beams/"):
            self.began = self.began or time.perf_counter()

    def done(self, stage: Stage, done: Done) -> None:
        self.ended = time.perf_counter()


def labeled(teachers: int, seconds: float) -> float:
    """Seconds in which so many teachers, with so many a batch, make the label table, by `execute` on the Ray that this process has joined."""
    task = task_of(SlotsSection(n_teacher=1, n_student=ROWS, n_test=None, n_validation=None))
    label = labeling(
        task,
        task.draw(0).student,
        {f"teacher{i}": "tiny-gpt2" for i in range(teachers)},
        actors=Actors(resources={"device": 1}),
        decoding=Decoding(beams=1, max_new_tokens=48, batch_size=BATCH),
    )
    clock = Clock()
    with (
        tempfile.TemporaryDirectory() as folder,
        StageDisplay(Console(file=StringIO())) as display,
        patch("raw2s.labeling.answers.BeamActor", partial(SleepingBeams, seconds)),
        patch("raw2s.labeling.cross_scores.ScoreActor", partial(SleepingScores, seconds)),
    ):
        done = execute(
            inputs_first([label]),
            store=ArtifactStore(Path(folder)),
            display=display,
            ray_config=RayConfig(parallel_stages=teachers),
            listener=clock,
        )
        rows, names = label.read(done["label"].artifact.folder)
    assert len(rows) == teachers * ROWS and len(names) == teachers, "a candidate is missing"
    return clock.ended - clock.began


def one_cluster(nodes: int, seconds: float) -> dict[int, float]:
    """Seconds by the number of teachers, one after the other on the same cluster."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": STORE})
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1, resources={"device": 1}, object_store_memory=STORE)
        ray.init(address=cluster.address, log_to_driver=False, runtime_env=forked_workers())
        labeled(nodes, 0.0)  # starts the server that forks, and Ray's own actors
        return {teachers: labeled(teachers, seconds) for teachers in TEACHERS}
    finally:
        ray.shutdown()
        cluster.shutdown()


def results(sleep: float) -> dict[str, Any]:
    """By teachers and nodes: seconds, seconds a row, the devices' share of them, and throughput a node against one node's."""
    seconds = {nodes: one_cluster(nodes, sleep) for nodes in NODES}
    found: dict[str, Any] = {}
    for teachers in TEACHERS:
        device = teachers * PASSES * (ROWS // BATCH) * sleep
        found[str(teachers)] = {
            str(nodes): {
                "seconds": own[teachers],
                "seconds_a_row": own[teachers] / ROWS,
                "device_share": device / (nodes * own[teachers]),
                "efficiency": seconds[1][teachers] / (nodes * own[teachers]),
            }
            for nodes, own in seconds.items()
        }
    return found


def main() -> None:
    arguments = harness.parser(__doc__, "placement.json", parts=PARTS).parse_args()
    os.environ.update(RAY_ENV | {"RAY_worker_niceness": "0"})
    for part in arguments.parts or PARTS:
        load = os.getloadavg()[0]
        found = {"rows": ROWS, "batch": BATCH, "load_before": load, "teachers": results(PARTS[part])}
        harness.write_part(arguments.out, part, found, harness.environment("ray", "torch"))
        json.dump(found, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
