"""Labelling under Ray: what Ray costs over the same functions in a plain process, and what more nodes bring.

python benchmarks/ray_labelling.py THREADS|ray PROMPTS FOLDER     (one labelling stage; `labelling.py` starts these and measures)
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import pyarrow as pa
from demo import family

BEAMS = 8
"""Of the Ray tax: two minutes of work and more, for what Ray starts is paid once."""
SLEEP = 1.0
"""Seconds of simulated device time for a batch."""
UNITS = 200
NODES = (1, 2, 4)


# --- the labelling stage: three teachers' beams, cross scores, one table ---


def stage(variant: str, prompts: int, storage: Path) -> None:
    """Label `prompts` SLURP utterances by the pipeline's own stages; prints seconds.

    With Ray, or for a number of torch threads with `run_pass` as a loop in this process.
    """
    import torch  # noqa: PLC0415

    from raw2s.config import RayConfig, parse_config  # noqa: PLC0415
    from raw2s.labeling.units import UnitActor, gather, unit_name  # noqa: PLC0415
    from raw2s.models.load import TINY_FOLDER  # noqa: PLC0415
    from raw2s.pipeline import labelling  # noqa: PLC0415
    from raw2s.pipeline.artifacts import Artifact  # noqa: PLC0415
    from raw2s.pipeline.execute import start_ray  # noqa: PLC0415
    from raw2s.pipeline.progress import Board  # noqa: PLC0415
    from raw2s.pipeline.stages import StageContext, write_jsonl  # noqa: PLC0415
    from raw2s.tasks.slurp import held_out_slurp, pool_rows  # noqa: PLC0415

    names = ["tiny-gpt2", "tiny-opt", "tiny-gpt-neox"]
    config = parse_config({"teachers": [{"name": n, "model": n} for n in names], "student": {"model": "tiny-gpt2"}})
    rows = [*pool_rows(), *held_out_slurp("test", None), *held_out_slurp("devel", None)][:prompts]
    assert len(rows) == prompts
    split = storage / "split"
    split.mkdir()
    write_jsonl(split / "student.jsonl", [{"id": i, "prompt": row["text"] + "\n"} for i, row in enumerate(rows)])
    models = {}
    for name in names:
        (storage / name).mkdir()
        (storage / name / "model").symlink_to(TINY_FOLDER / name)
        models[name] = Artifact(storage / name, {"key": name})
    settings: dict[str, Any] = {"beams": BEAMS, "max_new_tokens": 48, "batch_size": 50}

    def context(name: str, inputs: dict[str, Artifact]) -> StageContext:
        out, parts = storage / name / "out", storage / name / "parts"
        out.mkdir(parents=True)
        return StageContext(name, {"split": Artifact(split, {"key": "split"}), **inputs}, out, parts, board)

    def answer(name: str) -> Artifact:
        at = context(f"beams-{name}", {"teacher": models[name]})
        labelling.answer(at, config, 1, settings | {"teacher": name})
        return Artifact(at.out, {"key": f"beams-{name}"})

    in_turn = threading.Lock()

    def loop(make: Callable[[], Any], units: list[Any], pool: Any, *, schema: pa.Schema, folder: Path, progress: Any) -> Any:
        with in_turn:
            actor = UnitActor(make, schema, progress, pool.name)
            files = [folder / f"{unit_name(unit)}.parquet" for unit in units]
            for unit, file in zip(units, files, strict=True):
                actor({"unit": json.dumps(unit), "file": str(file)})
        return gather(units, files, schema)

    def label() -> float:
        start = time.perf_counter()
        with ThreadPoolExecutor(len(names)) as threads:
            answers = dict(zip([f"answers:{name}" for name in names], threads.map(answer, names), strict=True))
        teachers = {f"teacher:{name}": models[name] for name in names}
        labelling.label(context("label", answers | teachers), config, 1, settings)
        return time.perf_counter() - start

    board: Any = None
    if variant == "ray":
        os.environ["OMP_NUM_THREADS"] = "1"  # as Ray sets it for actors of one CPU
        start_ray(RayConfig(num_cpus=os.cpu_count()))
        board = Board.remote()  # type: ignore[attr-defined]
        seconds = label()
    else:
        torch.set_num_threads(int(variant))
        with patch("raw2s.pipeline.labelling.run_pass", loop), patch("raw2s.labeling.cross_scores.run_pass", loop):
            seconds = label()
    print(json.dumps({"seconds": seconds}))


def measured(variant: str, prompts: int) -> dict[str, Any]:
    """Wall seconds of the stage, CPU seconds of the process and all that it started, and the table's rows."""
    import pyarrow.parquet as pq  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, variant, str(prompts), folder]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        seen: dict[tuple[int, float], float] = {}
        while process.poll() is None:
            for each in family(process.pid):
                try:
                    times = each.cpu_times()
                    seen[each.pid, each.create_time()] = times.user + times.system
                except psutil.NoSuchProcess:
                    continue
            time.sleep(0.1)
        assert process.stdout is not None
        output = process.stdout.read()
        assert process.returncode == 0, output
        table = pq.read_table(Path(folder) / "label" / "out" / "labels.parquet").to_pylist()
    return {"wall_seconds": json.loads(output.splitlines()[-1])["seconds"], "cpu_seconds": sum(seen.values()), "table": table}


def ray_tax(prompts: int) -> dict[str, Any]:
    """With Ray and in one process, which runs on as many torch threads as a tenth of the work shows to be best.

    The tenth also tells what is paid once apart from what every prompt pays. Raises AssertionError unless the tables are equal
    to the last bit.
    """
    threads = sorted({"1", str(os.cpu_count())})
    few = {variant: measured(variant, prompts // 10) for variant in (*threads, "ray")}
    plain = min(threads, key=lambda variant: few[variant]["wall_seconds"])
    many = {variant: measured(variant, prompts) for variant in (plain, "ray")}
    tables = {variant: run.pop("table") for variant, run in many.items()}
    assert tables["ray"] == tables[plain], "Ray labels otherwise"
    for run in few.values():
        run.pop("table")
    each = {variant: many[variant]["cpu_seconds"] - few[variant]["cpu_seconds"] for variant in many}
    return {
        "teachers": 3, "beams": BEAMS, "prompts": [prompts // 10, prompts], "candidates": len(tables["ray"]),
        "plain_threads": int(plain), "tenth": few, "whole": many,
        "tax_by_wall_time": many["ray"]["wall_seconds"] / many[plain]["wall_seconds"],
        "tax_by_cpu_time": many["ray"]["cpu_seconds"] / many[plain]["cpu_seconds"],
        "tax_by_cpu_time_per_prompt": each["ray"] / each[plain],
        "counted": "Under Ray on as many CPUs as the machine has, one for an actor; wall: the stage alone; CPU: from the "
        "interpreter's start to its end, with Ray's own processes and all imports; per prompt: of the prompts that the whole has more.",
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
    import ray  # noqa: PLC0415
    from ray.cluster_utils import Cluster  # noqa: PLC0415

    from raw2s.labeling.units import ANSWER, Pool, Progress, prompt_units, run_pass  # noqa: PLC0415

    units = prompt_units(range(UNITS), [f"prompt {i}" for i in range(UNITS)], 1)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 * 2**20})
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1, resources={"teaching": 1}, object_store_memory=100 * 2**20)
        ray.init(address=cluster.address, log_to_driver=False)
        with tempfile.TemporaryDirectory() as folder:
            start, log = time.time(), Path(folder) / "log"
            pool = Pool("teacher", replicas=(nodes, nodes), resources={"teaching": 1})
            schema = pa.schema([*ANSWER, ("shout", pa.string())])
            answered = run_pass(
                sleeping(log), units, pool, schema=schema, folder=Path(folder) / "units", progress=Progress(None, "label", 0)
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
