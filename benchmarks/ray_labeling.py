"""Labeling under Ray: what Ray costs over the same functions in a plain process, and what more nodes bring.

python benchmarks/ray_labeling.py THREADS|ray PROMPTS FOLDER     (one labeling stage; `labeling.py` starts these and measures)
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import harness
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch
from label_stage import labeling

from raw2s.config import Decoding, RayConfig
from raw2s.labeling.prompts import prompt_units
from raw2s.labeling.units import Answered, Pool, PromptProgress, UnitActor, gather, run_pass, unit_name
from raw2s.labels.table import ANSWER
from raw2s.pipeline.artifacts import Artifact
from raw2s.pipeline.labeling_stages import Label
from raw2s.pipeline.local_ray import start_ray
from raw2s.pipeline.progress import Board
from raw2s.pipeline.stage import Stage, Work
from raw2s.section import Actors
from raw2s.tasks import task_of
from raw2s.tasks.slurp import POOL
from raw2s.tasks.slurp_slots import SlotsSection

TEACHERS = ("tiny-gpt2", "tiny-opt", "tiny-gpt-neox")
BEAMS = 8
"""Of the Ray tax."""
SLEEP = 1.0
"""Seconds of simulated device time for a batch."""
UNITS = 200
NODES = (1, 2, 4)
IN_TURN = threading.Lock()


# --- the labeling stage: three teachers' beams, cross scores, one table ---


def planned(prompts: int) -> Label:
    """The label stage of the main job, and through it all others, on the first `prompts` SLURP utterances."""
    task = task_of(SlotsSection(n_teacher=1, n_student=POOL - 1, n_test=None, n_validation=None))
    every = [*task.draw(0).student, *task.held_out("test"), *task.held_out("validation")]
    assert len(every) >= prompts
    decoding = Decoding(beams=BEAMS, max_new_tokens=48, batch_size=50)
    return labeling(task, every[:prompts], {name: name for name in TEACHERS}, actors=Actors(), decoding=decoding)


def in_this_process(
    make: Callable[[], Any], units: list[Any], pool: Any, *, schema: pa.Schema, folder: Path, progress: Any
) -> Answered:
    """What `run_pass` does, as a loop without Ray; one pass at a time."""
    with IN_TURN:
        actor = UnitActor(ray.cloudpickle.dumps(make), schema, progress, pool.name)
        files = [folder / f"{unit_name(unit)}.parquet" for unit in units]
        for unit, file in zip(units, files, strict=True):
            actor({"unit": json.dumps(unit), "file": str(file)})
    return gather(units, files, schema)


def stage(variant: str, prompts: int, storage: Path) -> None:
    """Label `prompts` SLURP utterances by the pipeline's own stages; prints seconds.

    With Ray, or for a number of torch threads with `run_pass` as a loop in this process.
    """
    label, made = planned(prompts), {}
    board: Any = None

    def run(stage: Stage) -> None:
        out = storage / stage.name
        out.mkdir(parents=True)
        inputs = {needed.key: made[needed.key] for needed in stage.inputs.values()}
        stage.run(Work(inputs=inputs, out=out, parts=storage / "parts" / stage.name, board=board))
        made[stage.key] = Artifact(out, {"key": stage.key})

    for needed in (label.split, *(labeler.model for labeler in label.scorers.values())):
        run(needed)

    def labeled() -> float:
        start = time.perf_counter()
        with ThreadPoolExecutor(len(TEACHERS)) as threads:
            list(threads.map(run, label.answers.values()))
        run(label)
        return time.perf_counter() - start

    if variant == "ray":
        os.environ["OMP_NUM_THREADS"] = "1"  # as Ray sets it for actors of one CPU
        start_ray(RayConfig(num_cpus=len(TEACHERS)))  # logical, as in configs/demo.yaml: else one waits for another's end
        board = Board.remote()  # type: ignore[attr-defined]
        seconds = labeled()
    else:
        torch.set_num_threads(int(variant))
        passes = ("raw2s.labeling.answers.run_pass", "raw2s.labeling.cross_scores.run_pass")
        with patch(passes[0], in_this_process), patch(passes[1], in_this_process):
            seconds = labeled()
    print(json.dumps({"seconds": seconds}))


def measured(variant: str, prompts: int, cpus: Sequence[int]) -> dict[str, Any]:
    """On these CPUs: wall seconds of the stage, CPU seconds of the process and all that it started, and the table's rows."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {harness.MARK: folder}
        command = [sys.executable, __file__, variant, str(prompts), folder]
        process = subprocess.Popen(
            ["taskset", "-c", ",".join(map(str, cpus)), *command], stdout=subprocess.PIPE, text=True, env=environment
        )
        seen: dict[tuple[int, float], float] = {}
        while process.poll() is None:
            for each in harness.marked(folder):
                try:
                    times = each.cpu_times()
                    seen[each.pid, each.create_time()] = times.user + times.system
                except psutil.NoSuchProcess:
                    continue
            time.sleep(0.1)
        assert process.stdout is not None
        output = process.stdout.read()
        assert process.returncode == 0, output
        table = pq.read_table(Path(folder) / "label" / Label.TABLE).to_pylist()
    return {"wall_seconds": json.loads(output.splitlines()[-1])["seconds"], "cpu_seconds": sum(seen.values()), "table": table}


def compared(prompts: int, cpus: Sequence[int]) -> dict[str, Any]:
    """With Ray, and in one process by the number of its torch threads.

    Raises AssertionError unless Ray's table is that of the process with one thread to the last bit.
    """
    threads = sorted({"1", str(len(cpus))})
    runs = {variant: measured(variant, prompts, cpus) for variant in (*threads, "ray")}
    tables = {variant: run.pop("table") for variant, run in runs.items()}
    assert tables["ray"] == tables["1"], "Ray labels otherwise"
    plain = min(threads, key=lambda variant: runs[variant]["wall_seconds"])
    return {
        "candidates": len(tables["ray"]), "runs": runs, "best_plain_threads": int(plain),
        "tax_by_wall_time": runs["ray"]["wall_seconds"] / runs[plain]["wall_seconds"],
        "tax_by_cpu_time": runs["ray"]["cpu_seconds"] / runs[plain]["cpu_seconds"],
    }  # fmt: skip


def ray_tax(sizes: Sequence[int], rounds: int) -> dict[str, Any]:
    """Several rounds of a minute's work and of two, the whole machine for either side; and of a minute's on one CPU."""
    every = range(os.cpu_count() or 1)
    found = {str(prompts): [compared(prompts, every) for _ in range(rounds)] for prompts in sizes}
    taxes = {prompts: sorted(each["tax_by_wall_time"] for each in of) for prompts, of in found.items()}
    return {
        "teachers": len(TEACHERS), "beams": BEAMS, "prompts": found,
        "tax_by_wall_time": {prompts: {"median": median(of), "worst": of[-1]} for prompts, of in taxes.items()},
        "one_cpu": {str(sizes[0]): compared(sizes[0], every[:1])},
        "counted": "The process with the better number of threads is compared with Ray, whose actors of one thread, one a teacher, "
        "run side by side. Wall: the stage alone, with the start of all its actors; CPU: from the interpreter's start to its end, "
        "with all imports and, under Ray, Ray's own processes.",
    }  # fmt: skip


# --- more nodes ---


def sleeping(log: Path) -> Callable[[], Callable[[Any], list[Any]]]:
    """Makes a teacher that sleeps `SLEEP` for a batch. Nested functions: Ray pickles them whole."""
    seconds = SLEEP

    def teacher(unit: Any) -> list[Any]:
        with log.open("a") as stream:
            stream.write(f"{time.time()}\n")
        time.sleep(seconds)
        return [{"shout": prompt.upper()} for prompt in unit["prompts"]]

    return lambda: teacher


def one_cluster(nodes: int) -> dict[str, float]:
    from ray.cluster_utils import Cluster  # noqa: PLC0415

    units = prompt_units(range(UNITS), [f"prompt {i}" for i in range(UNITS)], 1)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 * 2**20})
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1, resources={"teaching": 1}, object_store_memory=100 * 2**20)
        ray.init(address=cluster.address, log_to_driver=False)
        with tempfile.TemporaryDirectory() as folder:
            start, log = time.time(), Path(folder) / "log"
            pool = Pool(name="teacher", model="", actors=Actors(replicas=(nodes, nodes), resources={"teaching": 1}))
            schema = pa.schema([*ANSWER, ("shout", pa.string())])
            answered = run_pass(
                sleeping(log),
                units,
                pool,
                schema=schema,
                folder=Path(folder) / "units",
                progress=PromptProgress(None, "label", 0),
            )
            seconds = time.time() - start
            began = [float(line) for line in log.read_text().splitlines()]
        assert sorted(answered.answers["id"].to_pylist()) == list(range(UNITS))
        assert len(began) == UNITS, "a batch was answered twice"
    finally:
        ray.shutdown()
        cluster.shutdown()
    return {"seconds": seconds, "until_the_first_batch": min(began) - start, "batches_per_second": UNITS / seconds}


def scale() -> dict[str, Any]:
    """Throughput by number of nodes, all that a pass takes counted: actors' start, scheduling, files."""
    found = {str(nodes): one_cluster(nodes) for nodes in NODES}
    rate = {nodes: run["batches_per_second"] for nodes, run in found.items()}
    return {
        "batches": UNITS, "sleep_seconds": SLEEP, "nodes": found,
        "times_one_node": {nodes: rate[nodes] / rate["1"] for nodes in rate},
    }  # fmt: skip


if __name__ == "__main__":
    stage(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
