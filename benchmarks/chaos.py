"""Kills at random in every kind of stage; then the same command again, until the run is what it would have been without them.

    python benchmarks/chaos.py [PART ...]      # `make chaos`; writes benchmarks/results/kills.json; an hour

A tiny run and a sweep over its student, each kind of stage with each victim. Part `pipeline`, on a Ray of its own: the driver, one of Ray's
workers, Ray's raylet, its GCS, its agents, the server that forks workers. Part `nodes`, on a Ray of three nodes: a worker node, or the
head with the driver.
Kills are SIGKILL at a random moment of the stage. In the end every artifact's checksums must be those of a run left alone, and nothing
that was started may still be running.
"""

import itertools
import json
import math
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import harness
import psutil
import yaml
from chaos_nodes import ThreeNodes

from raw2s.pipeline.artifacts import LIBRARIES

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("fine-tuning", "beams", "scoring", "student", "pairs", "cdpo", "test", "trial")
VICTIMS = {
    "worker": r"ray::(?!IDLE|\w*Agent)",
    "raylet": r"\S*/raylet/raylet ",
    "gcs": r"\S*/gcs/gcs_server ",
    "agent": r"ray::\w*Agent",
    "fork server": r".* -m raw2s\.forking\.server ",
}
"""How the command line of each begins; beside them the driver."""
PARTS = {"pipeline": ("driver", *VICTIMS), "nodes": ("node", "head")}
"""The victims of each."""
TRIAL = r"ray::\w*(ImplicitFunc|run_trial)"
SURVIVED = ("worker", "fork server", "node")
"""By the driver; after one of these it is left alone for some seconds, after any other it has to end."""
CALM_SECONDS = 5.0
STILL_SECONDS = 600.0
"""Without a word after a kill: it hangs."""
GONE_SECONDS = 30.0
"""For what an ended driver had started."""
Pair = tuple[str, str]
"""A kind of stage, and whom to kill in it."""
RUN = {
    "name": "tiny",
    "task": {"name": "slurp_slots", "n_teacher": 48, "n_student": 24, "n_validation": 16, "n_test": 24},
    "teachers": [{"name": "gpt2", "model": "tiny-gpt2"}, {"name": "opt", "model": "tiny-opt"}],
    "teacher_training": {"epochs": 2, "checkpoint_every": 2},
    "labeling": {"beams": 2, "max_new_tokens": 24, "batch_size": 6},
    "student": {"model": "tiny-gpt-neox"},
    "student_training": {"epochs": 2, "checkpoint_every": 2, "keep": "best", "judge": "score", "judged_examples": 4},
    "methods": [{"method": "bayesian", "loss": {"gamma_max": 0.1}, "cdpo": True}],
    "preference": {"beams": 3, "training": {"epochs": 1, "learning_rate": 1.0e-5, "checkpoint_every": 1}},
    "evaluation": {"batch_size": 6, "resamples": 50},
    "ray": {"num_cpus": 8},
}
SWEEP = {
    "base": "config.yaml",
    "sweep": {"name": "tiny_sweep", "methods": [0], "trials": 3, "search": "random", "scheduler": "none", "concurrent": 2},
    "methods": {0: {"cdpo": False, "loss": {"gamma_max": {"uniform": [0.01, 0.3]}}}},
}


@dataclass
class Job:
    """A command that runs, and what it has said."""

    process: subprocess.Popen[str]
    folder: Path
    sweeps: bool
    began: dict[str, float] = field(default_factory=dict)
    """When each stage that still runs began."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Of the kinds of stages that have ended, the longest."""
    lines: list[str] = field(default_factory=list)
    heard: float = field(default_factory=time.monotonic)

    def listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.heard = time.monotonic()
            self.lines.append(line.rstrip())
            stage, colon, what = line.rpartition("] ")[2].partition(": ")
            if colon and what.startswith("started"):
                self.began[stage] = self.heard
            elif stage in self.began and what.startswith(("done", "failed")):
                took = self.heard - self.began.pop(stage)
                self.seconds[kind_of(stage)] = max(took, self.seconds.get(kind_of(stage), 0.0))

    def running(self) -> set[str]:
        """The kinds of its stages that run now."""
        kinds = {kind_of(stage) for stage in list(self.began)}
        return kinds | {"trial"} if self.sweeps and processes(self.folder, TRIAL) else kinds


def kind_of(stage: str) -> str:
    first = stage.split("/")[0]
    return {"teacher": "fine-tuning", "ceiling": "fine-tuning", "label": "scoring"}.get(first, first)


def processes(folder: Path, pattern: str) -> list[psutil.Process]:
    """What the commands of `folder` have started, by the beginning of its command line."""
    found = []
    for process in harness.marked(str(folder)):
        try:
            if re.match(pattern, " ".join(process.cmdline())):
                found.append(process)
        except psutil.Error:
            continue
    return sorted(found, key=lambda process: process.pid)


def start(folder: Path, *, sweeps: bool, address: str | None) -> Job:
    """With an `address`, on the Ray there."""
    script, config = ("sweep.py", "sweep.yaml") if sweeps else ("full_pipeline.py", "config.yaml")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "jobs" / script), "--config", str(folder / config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
        | {harness.MARK: str(folder)}
        | ({"RAY_ADDRESS": address} if address else {})
        | {"RAY_worker_niceness": "0"},  # else whatever runs beside them on the machine is all that is measured
    )
    job = Job(process=process, folder=folder, sweeps=sweeps)
    threading.Thread(target=job.listen, daemon=True).start()
    return job


def kill(job: Job, victim: str, draw: random.Random, nodes: ThreeNodes | None) -> bool:
    """Whether there was one to kill."""
    if nodes is not None:
        if victim == "node":
            nodes.lose_worker(draw)
        else:
            nodes.lose_head()
            job.process.kill()  # it ran there
        return True
    own = [psutil.Process(job.process.pid)] if victim == "driver" else processes(job.folder, VICTIMS[victim])
    try:
        draw.choice(own).kill()
    except (IndexError, psutil.NoSuchProcess):
        return False
    return True


def to_its_end(
    folder: Path, *, sweeps: bool, left: list[Pair], usual: dict[str, float], draw: random.Random, on_nodes: bool = False
) -> list[dict[str, Any]]:
    """Run a command, on a cluster's nodes or a Ray of its own, killing what `left` says (and taking it from there) while the kinds of stages last, and again until it ends well."""
    kills: list[dict[str, Any]] = []
    while True:
        nodes = ThreeNodes(folder) if on_nodes else None
        job = start(folder, sweeps=sweeps, address=nodes.address if nodes else None)
        began, calm = len(kills), time.monotonic()
        due: dict[Pair, float] = {}
        while job.process.poll() is None:
            time.sleep(0.05)
            now, running = time.monotonic(), job.running()
            if now - job.heard > STILL_SECONDS:
                kills.append({"hangs": job.lines[-1:], "after": kills[began:]})
                job.process.kill()
            for kind in running:
                if pair := next((own for own in left if own[0] == kind), None):
                    due.setdefault(pair, now + draw.uniform(0, 0.9 * usual.get(kind, 3.0)))
            for pair in [own for own, at in due.items() if at <= now and now >= calm]:
                del due[pair]
                if pair[0] in running and kill(job, pair[1], draw, nodes):
                    left.remove(pair)
                    job.heard, calm = now, now + (CALM_SECONDS if pair[1] in SURVIVED else math.inf)
                    kills.append({"kind": pair[0], "victim": pair[1], "stages": sorted(job.began), "at": now})
        ended, status = time.monotonic(), job.process.wait()
        if nodes is not None:
            nodes.stop()
        behind = still_there(folder)
        for own in kills[began:]:
            if "at" in own:
                own |= {"exit": status, "seconds_to_the_end": round(ended - own.pop("at"), 1), "left_running": behind}
        print(*(json.dumps(own) for own in kills[began:]), sep="\n", flush=True)
        if status == 0:
            usual |= {kind: seconds for kind, seconds in job.seconds.items() if began == 0 and not kills}
            return kills
        if status != -9:
            print(*job.lines[-6:], sep="\n    ", flush=True)
        if began == len(kills):
            raise RuntimeError("\n".join(["it failed with nothing killed", *job.lines[-30:]]))


def still_there(folder: Path) -> list[str]:
    """The command lines of what an ended command has left running, which is killed here."""
    end = time.monotonic() + GONE_SECONDS
    while (there := processes(folder, "")) and time.monotonic() < end:
        time.sleep(0.2)
    lines = []
    for process in there:
        with suppress(psutil.Error):
            lines.append(f"{process.pid} {' '.join(process.cmdline())[:80]}")
            process.kill()
    return lines


def contents(folder: Path) -> dict[str, dict[str, Any]]:
    """Every artifact's checksums."""
    return {
        f"{file.parent.parent.name}/{file.parent.name}": json.loads(file.read_text())["files"]
        for file in sorted(folder.glob("runs/artifacts/*/[!.]*/manifest.json"))
        if ".damaged-" not in file.parent.name
    }


def prepare(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(RUN | {"storage": str(folder / "runs")}))
    (folder / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    return folder


def all_killed(made: Path, left: list[Pair], draw: random.Random, *, on_nodes: bool) -> dict[str, Any]:
    """Kill every pair's victim once; the kills, and whether all was in the end as in a run left alone."""
    usual: dict[str, float] = {}
    alone = prepare(made / "alone")
    for sweeps in (False, True):
        to_its_end(alone, sweeps=sweeps, left=[], usual=usual, draw=draw)
    kills, equal, passes = [], True, 0
    draw.shuffle(left)
    while left:
        passes += 1
        folder = prepare(made / f"killed-{passes}")
        for sweeps in (False, True):
            kills += to_its_end(folder, sweeps=sweeps, left=left, usual=usual, draw=draw, on_nodes=on_nodes)
        equal = equal and contents(folder) == contents(alone)
        same = "equal" if equal else "DIFFER"
        print(f"pass {passes}: {len(kills)} kills so far, {len(left)} left, artifacts {same}", flush=True)
    return {"kills": kills, "artifacts": len(contents(alone)), "artifacts_equal": equal, "passes": passes}


def main() -> None:
    parser = harness.parser(__doc__, "kills.json", parts=PARTS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    arguments = parser.parse_args()
    fine = True
    for part in arguments.parts or PARTS:
        left = list(itertools.product(arguments.kinds, PARTS[part]))
        with tempfile.TemporaryDirectory() as made:
            found = all_killed(Path(made), left, random.Random(arguments.seed), on_nodes=part == "nodes")
        harness.write_part(arguments.out, part, found, harness.environment(*LIBRARIES, seed=arguments.seed))
        fine = fine and found["artifacts_equal"] and all(not own.get("left_running", ["hangs"]) for own in found["kills"])
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
