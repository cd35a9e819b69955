"""What starting processes costs the demo: its stages' seconds with Ray's workers forked from one process, and as Ray starts them.

    python benchmarks/process_starts.py [--config configs/demo.yaml] [--out benchmarks/results/process_starts.json]

Both in turn on one machine with nothing beside them, in a storage each; their scores must be equal to the last digit. Memory as in demo.py.
"""

import json
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any

import demo
import harness

from raw2s.pipeline import local_ray
from raw2s.pipeline.artifacts import LIBRARIES

AS_EVER = "--as-ever"


def measured(config: Path, *job: str) -> tuple[dict[str, Any], list[float]]:
    """A run's seconds, its stages', its peak memory; and its scores."""
    with tempfile.TemporaryDirectory() as storage:
        seconds, peak, _ = demo.run(config, Path(storage), job=job or demo.JOB)
        results = demo.read_results(Path(storage))
    stages = {stage.name: round(stage.seconds, 1) for stage in results.stages}
    systems = [*results.teachers, *([] if results.ceiling is None else [results.ceiling]), *results.students]
    found = {"seconds": round(seconds, 1), "peak_memory_gib": round(peak, 2), "stages": stages}
    return found, [score for system in systems for score in system.per_seed]


def main() -> None:
    parser = harness.parser(__doc__, "process_starts.json")
    parser.add_argument("--config", type=Path, default=demo.ROOT / "configs" / "demo.yaml")
    arguments = parser.parse_args()
    as_ever, scores = measured(arguments.config, __file__, AS_EVER)
    forked, again = measured(arguments.config)
    assert scores == again, f"forked workers gave other scores: {scores}, {again}"
    found = {"environment": harness.environment(*LIBRARIES), "as_ever": as_ever, "forked": forked, "scores": scores}
    harness.write(arguments.out, found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    if AS_EVER in sys.argv:
        sys.argv.remove(AS_EVER)
        local_ray.forked_workers = dict
        runpy.run_path(demo.JOB[0], run_name="__main__")
    else:
        main()
