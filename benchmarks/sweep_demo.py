"""What the demos' sweeps take here from an empty storage, and that nothing of them is left running.

    python benchmarks/sweep_demo.py [PART ...]          # writes benchmarks/results/sweep_demo.json

The job joins a Ray that is started for it, which is in the seconds, and stays up to be asked: every placement group must be
removed and no CPU reserved; when that Ray has ended too, every process must be gone. The page must be there. Then the main job
runs the best config on the test set.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import demo
import harness
import ray

from raw2s.pipeline.artifacts import LIBRARIES
from raw2s.pipeline.local_ray import start_ray
from raw2s.tuning.judged import JUDGED
from raw2s.tuning.reading import load_sweeps
from raw2s.tuning.searched import Sweep
from raw2s.tuning.trials import ranked, read_trials

ROOT = Path(__file__).resolve().parents[1]
SWEEPS = {"classification": "sweep_demo.yaml", "slots": "sweep_slots.yaml"}
COUNTS = r"stages +before the trials (\d+) found, (\d+) made; by trials (\d+) found, (\d+) made"


def wait_until_none(left: Callable[[], list[Any]], what: str, seconds: float = 60) -> None:
    """Raises RuntimeError where something is left after that time."""
    end = time.monotonic() + seconds
    while found := left():
        if time.monotonic() > end:
            raise RuntimeError(f"{what} left: {found}")
        time.sleep(0.5)


def reserved() -> list[str]:
    """The resources of which the Ray that this process has joined has given some away."""
    free = ray.available_resources()
    return [name for name, amount in ray.cluster_resources().items() if name in ("CPU", "GPU") and free.get(name, 0.0) < amount]


def run_job(config: Path, storage: Path, environment: dict[str, str]) -> str:
    """Its output."""
    command = [sys.executable, str(ROOT / "jobs" / "sweep.py"), "--config", str(config), "--set", f"storage={storage}"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print(done.stdout)
    if done.returncode:
        raise SystemExit(f"the sweep ended with {done.returncode}")
    return done.stdout


def run_sweep(sweep: Sweep, config: Path, storage: Path) -> tuple[float, str]:
    """(seconds, output) of the job, of which nothing is left."""
    mark = uuid4().hex
    os.environ[harness.MARK] = mark
    start = time.monotonic()
    start_ray(sweep.config(sweep.start).ray, dashboard=True)
    output = run_job(config, storage, os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address})
    seconds = time.monotonic() - start
    wait_until_none(
        lambda: [group for group in ray.util.placement_group_table().values() if group["state"] != "REMOVED"], "placement groups"
    )
    wait_until_none(reserved, "reservations")  # not the workers: Ray's own detached actors stay as long as it does
    ray.shutdown()
    wait_until_none(lambda: harness.marked(mark), "processes")
    return seconds, output


def measure(config: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        storage = Path(folder)
        (sweep,) = load_sweeps(config, [f"storage={storage}"])
        seconds, output = run_sweep(sweep, config, storage)
        trials = read_trials(storage / sweep.settings.name, sweep)
        best = ranked(trials)[0]
        if not (storage / sweep.settings.name / "report.html").is_file():
            raise SystemExit("the sweep has no page")
        best_seconds, _, text = demo.run(storage / sweep.settings.name / "best.yaml", storage)
        print(text)
        results = demo.read_results(storage)
    counted = re.search(COUNTS, output)
    assert counted, output
    found, made, by_trials_found, by_trials_made = map(int, counted.groups())
    return {
        "command": f"jobs/sweep.py --config configs/{config.name}",
        "seconds": round(seconds, 1),
        "trials": len(trials),
        "statuses": dict(Counter(trial.status for trial in trials)),
        "stages": {"before": {"found": found, "made": made}, "by_trials": {"found": by_trials_found, "made": by_trials_made}},
        "best": {"values": best.values, JUDGED: best.figure},
        "seconds_of_the_best_config": round(best_seconds, 1),
        "results": results.model_dump(mode="json"),
    }


def main() -> None:
    parser = harness.parser(__doc__, "sweep_demo.json", parts=SWEEPS)
    arguments = parser.parse_args()
    os.environ.pop("RAY_ADDRESS", None)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    for part in arguments.parts or SWEEPS:
        measured = measure(ROOT / "configs" / SWEEPS[part])
        harness.write_part(arguments.out, part, measured, harness.environment(*LIBRARIES))
        print({key: value for key, value in measured.items() if key != "results"})


if __name__ == "__main__":
    main()
