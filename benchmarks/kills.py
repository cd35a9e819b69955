"""Ten kills at random: a training run whose workers and driver are killed ends with the weights of one that was left alone.

    python benchmarks/kills.py          # writes benchmarks/results/kills.json

Kills are SIGKILL: of one worker at a random step, of one worker while a checkpoint is being written, of the driver with all of
its Ray. Two workers, ZeRO 2, EDL with soft labels and dropout, checkpoints every few steps.
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import psutil

from raw2s.config import RayConfig, TrainingConfig
from raw2s.decoding.bridge import words
from raw2s.labels.rows import TextTarget, TrainingRow
from raw2s.methods.evidential import EvidentialSection
from raw2s.models.load import load_model, load_tokenizer
from raw2s.pipeline.artifacts import LIBRARIES
from raw2s.pipeline.local_ray import start_ray
from raw2s.pipeline.resources import places
from raw2s.tasks import draw_halves
from raw2s.tasks.slurp_slots import SlotsSection
from raw2s.training.fit import fit
from raw2s.training.job import Job

ROWS, EPOCHS, BATCH, EVERY = 160, 2, 4, 3
KINDS = ("worker", "mid-checkpoint", "driver")


def main() -> None:
    parser = harness.parser(__doc__, "kills.json")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--train", type=Path, help="(the driver that is killed) train in this folder")
    arguments = parser.parse_args()
    if arguments.train is not None:
        train(arguments.train)
        return
    draw = random.Random(arguments.seed)
    kinds = [*KINDS, *draw.choices(KINDS, k=arguments.kills - len(KINDS))]
    draw.shuffle(kinds)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        alone = run(Path(folder) / "alone", [], draw)
        seconds_alone = time.perf_counter() - start
        start = time.perf_counter()
        killed = run(Path(folder) / "killed", kinds, draw)
        seconds_killed = time.perf_counter() - start
    result = {
        "environment": harness.environment(*LIBRARIES, seed=arguments.seed),
        "steps": EPOCHS * ROWS // BATCH,
        "checkpoint_every": EVERY,
        "kills": killed["kills"],
        "weights_identical": killed["weights"] == alone["weights"],
        "curve_identical": killed["curve"] == alone["curve"],
        "seconds": {"alone": round(seconds_alone, 1), "killed": round(seconds_killed, 1)},
    }
    print(json.dumps(result, indent=1))
    harness.write(arguments.out, result)
    sys.exit(0 if result["weights_identical"] and result["curve_identical"] else 1)


def run(folder: Path, kinds: list[str], draw: random.Random, rows: int = ROWS) -> dict[str, object]:
    """Train in `folder`, killing as `kinds` says at random steps; what was killed when, and checksums of weights and curve."""
    prepare(folder, rows)
    at = sorted(draw.sample(range(EVERY, EPOCHS * rows // BATCH - 2 * EVERY), len(kinds)))
    kills = []
    left: set[str] = set()
    driver = start(folder)
    for kind, step in zip(kinds, at, strict=True):
        wait_for(lambda step=step: reached(folder) >= step, driver)
        if kind == "driver":
            processes = harness.marked(str(folder))
            driver.send_signal(signal.SIGKILL)
            driver.wait()
            psutil.wait_procs(processes, timeout=30)  # its local Ray dies with it
            torn = unregistered(folder) - left
            driver = start(folder)
        else:
            if kind == "mid-checkpoint":
                before = unregistered(folder)
                wait_for(lambda before=before: bool(unregistered(folder) - before), driver, pause=0.0005)
            workers = wait_for(lambda: train_workers(folder), driver)
            draw.choice(sorted(workers, key=lambda process: process.pid)).send_signal(signal.SIGKILL)
            torn = unregistered(folder) - left
        left |= torn
        kills.append({"kind": kind, "step": reached(folder), "checkpoint_unfinished": bool(torn)})
    if driver.wait(timeout=300) != 0:
        raise RuntimeError((folder / "log.txt").read_text()[-3000:])
    weights, curve = checksums(folder / "out")
    return {"kills": kills, "weights": weights, "curve": curve}


def checksums(folder: Path) -> list[str]:
    """Of the exported weights and of the curve."""
    return [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("model/model.safetensors", "history.jsonl")]


def prepare(folder: Path, rows: int) -> None:
    """The rows and a base model that draws dropout."""
    (folder / "out").mkdir(parents=True)
    examples = draw_halves(SlotsSection(n_teacher=1, n_student=rows), seed=1).student
    with (folder / "rows.jsonl").open("w") as file:
        for example in examples:
            text = str(example["target"])
            scores = [[-0.1 * w for w in range(len(words(text)) + 1)]]
            target = TextTarget(text=text, weights=[1.0], word_logprobs=scores)
            file.write(json.dumps(TrainingRow(id=example["id"], prompt=example["prompt"], targets=[target])) + "\n")
    model = load_model("tiny-gpt2", "text")
    model.config.resid_pdrop = model.config.attn_pdrop = model.config.embd_pdrop = 0.1
    model.save_pretrained(folder / "base")
    load_tokenizer("tiny-gpt2").save_pretrained(folder / "base")


def train(folder: Path) -> None:
    """What the driver process does; it goes on where one that was killed left off."""
    start_ray(RayConfig(num_cpus=4))
    fit(job(folder), folder / "out", folder / "parts", board=None, warn=print, places=places)


def job(folder: Path) -> Job:
    training = TrainingConfig(
        epochs=EPOCHS, batch_size=BATCH, micro_batch_size=1, workers=2, zero_stage=2, checkpoint_every=EVERY, max_failures=100
    )
    rows = str(folder / "rows.jsonl")
    return Job(
        name="killed",
        model=str(folder / "base"),
        task="slurp_slots",
        form="text",
        classes=(),
        rows="targets",
        train_file=rows,
        validation_file=rows,
        training=training,
        loss=EvidentialSection(kl_weight=1e-6, gamma_max=0.1),
        seed=1,
    )


def start(folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "log.txt").open("ab") as log:
        command = [sys.executable, str(Path(__file__).resolve()), "--train", str(folder)]
        environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {harness.MARK: str(folder)}
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def snapshot(folder: Path) -> dict[str, Any]:
    """Ray Train's list of checkpoints, as far as it is written."""
    try:
        return json.loads((folder / "parts" / "train" / "checkpoint_manager_snapshot.json").read_text())
    except (OSError, ValueError):
        return {}


def reached(folder: Path) -> int:
    """The step of the latest checkpoint that Ray Train knows."""
    latest = snapshot(folder).get("latest_checkpoint_result") or {"metrics": {"step": 0}}
    return latest["metrics"]["step"]


def unregistered(folder: Path) -> set[str]:
    """Checkpoint folders that are there but not in Ray Train's list: being written, or left by a kill."""
    found = {path.name for path in (folder / "parts" / "train").glob("checkpoint_*") if path.is_dir()}
    return found - {result["checkpoint_dir_name"] for result in snapshot(folder).get("checkpoint_results", [])}


def train_workers(folder: Path) -> list[psutil.Process]:
    """The Ray Train workers of the driver in `folder`."""
    found = []
    for process in harness.marked(str(folder)):
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_for(condition: Callable[[], Any], driver: subprocess.Popen[bytes], *, pause: float = 0.02) -> Any:
    end = time.monotonic() + 120
    while not (value := condition()):
        if driver.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"the driver ended (exit {driver.poll()}), or two minutes went by, before the kill")
        time.sleep(pause)
    return value


if __name__ == "__main__":
    main()
