"""What the demo costs here: wall time to the closing table, the cached second run, and peak memory of all its processes.

    python benchmarks/demo.py [--config configs/demo.yaml] [--out benchmarks/results/demo.json]

A third run tests on the whole official test set, training nothing: its scores are kept as `results_whole_test_set`.

Memory is proportional set size, summed over the job and every process it started, sampled every three seconds: shared pages count once.
"""

import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import harness
import psutil

from raw2s.pipeline.artifacts import LIBRARIES
from raw2s.results import Results

ROOT = Path(__file__).resolve().parents[1]
JOB = (str(ROOT / "jobs" / "full_pipeline.py"),)


def run(config: Path, storage: Path, *overrides: str, job: Sequence[str] = JOB) -> tuple[float, float, str]:
    """(seconds, peak GiB, output) of one run of the main job, or of another that takes its arguments."""
    log, mark = storage / "output.txt", uuid.uuid4().hex
    start, peak = time.monotonic(), 0
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, *job, "--config", str(config),
             *(part for override in (f"storage={storage}", *overrides) for part in ("--set", override))],
            stdout=stream, stderr=subprocess.STDOUT, env=os.environ | {harness.MARK: mark},
        )  # fmt: skip
        while process.poll() is None:
            peak = max(peak, sum(proportional_set_size(p) for p in harness.marked(mark)))
            time.sleep(3)
    seconds = time.monotonic() - start
    text = log.read_text()
    if process.returncode:
        raise SystemExit(f"the demo ended with {process.returncode}:\n{text}")
    return seconds, peak / 2**30, text


def read_results(storage: Path) -> Results:
    return Results.read(next(storage.glob("*/results.json")).parent)


def proportional_set_size(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0


def main() -> None:
    parser = harness.parser(__doc__, "demo.json")
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "demo.yaml")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        storage = Path(folder)
        seconds, peak, text = run(arguments.config, storage)
        cached_seconds, _, _ = run(arguments.config, storage)
        results = read_results(storage)
        _, _, whole_text = run(arguments.config, storage, "task.n_test=null")
        whole = read_results(storage)
    print(text, whole_text)
    measured = {
        "environment": harness.environment(*LIBRARIES),
        "seconds": round(seconds, 1),
        "seconds_cached": round(cached_seconds, 1),
        "peak_memory_gib": round(peak, 2),
        "results": results.model_dump(mode="json"),
        "results_whole_test_set": whole.model_dump(mode="json"),
    }
    harness.write(arguments.out, measured)
    print({key: value for key, value in measured.items() if not key.startswith("results")})


if __name__ == "__main__":
    main()
