"""What a fourth teacher costs a demo that is finished with three: seconds of the stages that run again, and of those that are found.

    python benchmarks/one_more_teacher.py [--out benchmarks/results/one_more_teacher.json]

Both runs are the main job's, one after the other with the same storage.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import harness
import yaml
from demo import ROOT, read_results, run

from raw2s.pipeline.artifacts import LIBRARIES
from raw2s.results import Results

DEMO = ROOT / "configs" / "demo.yaml"
FOURTH = {"name": "qwen2", "model": "small-qwen2"}


def one(storage: Path, seconds: float, results: Results) -> dict[str, Any]:
    """Of one run: the whole, its stages' seconds, and the rows of its label table."""
    key = next(stage.key for stage in results.stages if stage.name == "label")
    table = json.loads((storage / "artifacts" / "label" / key / "manifest.json").read_text())["metrics"]
    ran = {stage.name: stage.seconds for stage in results.stages if not stage.cached}
    found = {stage.name: stage.seconds for stage in results.stages if stage.cached}
    return {"seconds": round(seconds, 1), "ran": ran, "found": found, "candidates": table["candidates"]}


def main() -> None:
    arguments = harness.parser(__doc__, "one_more_teacher.json").parse_args()
    teachers = yaml.safe_load(DEMO.read_text())["teachers"]
    with tempfile.TemporaryDirectory() as folder:
        storage = Path(folder)
        three = one(storage, run(DEMO, storage)[0], read_results(storage))
        seconds = run(DEMO, storage, f"teachers={json.dumps([*teachers, FOURTH])}")[0]
        four = one(storage, seconds, read_results(storage))
    measured = {"environment": harness.environment(*LIBRARIES), "three": three, "four": four}
    harness.write(arguments.out, measured)
    print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
