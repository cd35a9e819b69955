"""Where Ray puts what the stages start, on nodes with labels: those that find no room wait for their turn, and each gets it."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
import ray
from ray.cluster_utils import Cluster

from raw2s.config import RayConfig, TrainingConfig
from raw2s.labeling.prompts import prompt_units
from raw2s.labeling.units import Pool, PromptProgress, run_pass
from raw2s.labels.table import ANSWER
from raw2s.methods.cross_entropy import CrossEntropySection
from raw2s.pipeline.local_ray import start_ray
from raw2s.section import Actors
from raw2s.training import fit
from raw2s.training.job import Job

UNITS = prompt_units(range(6), [f"prompt {i}" for i in range(6)], 2)
SCHEMA = pa.schema([*ANSWER, ("node", pa.string())])


def noting(log: Path):
    """A teacher that answers with its node and notes when it had it. Nested functions: Ray pickles them whole."""

    def make():
        node, began = ray.get_runtime_context().get_node_id(), time.time()

        def teacher(unit):
            time.sleep(0.5)
            with log.open("a") as stream:
                stream.write(json.dumps([began, time.time()]) + "\n")
            return [{"node": node}] * len(unit["ids"])

        return teacher

    return make


def training(folder: Path, label_selector: dict[str, str]):
    """A Ray Train run of two workers."""
    job = Job(
        name="student", model="", task="", form="text", classes=(), rows="targets", train_file="", validation_file="",
        training=TrainingConfig(workers=2, micro_batch_size=8, batch_size=16, label_selector=label_selector),
        loss=CrossEntropySection(), seed=1,
    )  # fmt: skip
    return fit._trainer(job, folder, None, (), workers=2, patient=True)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_more_teachers_than_devices_take_turns_and_a_student_gets_all_its_places_at_once(tmp_path, monkeypatch):
    """One device for three teachers that would each like two, and on its node two CPUs for a student's two workers."""

    def worker(settings):
        (tmp_path / f"worker-{ray.train.get_context().get_world_rank()}").write_text(ray.get_runtime_context().get_node_id())

    monkeypatch.setattr(fit, "_worker", worker)
    ray.shutdown()
    head = {"num_cpus": 2, "object_store_memory": 80 * 2**20, "labels": {"pool": "train"}}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        teaching = {"resources": {"device": 1}, "labels": {"pool": "teach"}}
        cluster.add_node(num_cpus=2, object_store_memory=80 * 2**20, **teaching)
        ray.data.DataContext.get_current().execution_no_progress_timeout_s = 1
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        start_ray(RayConfig())
        actors = Actors(replicas=(2, 2), resources={"device": 1}, label_selector={"pool": "in(both, teach)"})

        def labeled(name: str):
            pool, progress = Pool(name=name, model="", actors=actors), PromptProgress(None, name, 0)
            return run_pass(
                noting(tmp_path / name), UNITS, pool, schema=SCHEMA, folder=tmp_path / f"{name}-units", progress=progress
            )

        trainer = training(tmp_path / "student", {"pool": "teach"})
        with ThreadPoolExecutor(4) as threads:
            student, passes = threads.submit(trainer.fit), list(threads.map(labeled, "abc"))
            student.result()
        ids = {node["Labels"]["pool"]: node["NodeID"] for node in ray.nodes()}
        assert [set(answered.answers["node"].to_pylist()) for answered in passes] == [{ids["teach"]}] * 3
        assert [(tmp_path / f"worker-{rank}").read_text() for rank in range(2)] == [ids["teach"]] * 2
        turns = sorted(turn(tmp_path / name) for name in "abc")
        assert all(end <= begin for (_, end), (begin, _) in pairwise(turns)), "two had the one device at once"
    finally:
        ray.shutdown()
        cluster.shutdown()


def turn(log: Path) -> tuple[float, float]:
    """When a teacher had the device."""
    began, ended = zip(*[json.loads(line) for line in log.read_text().splitlines()], strict=True)
    return min(began), max(ended)
