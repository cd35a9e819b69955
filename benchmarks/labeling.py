"""Everything measured of labeling: scoring, beams, what Ray costs, and what more nodes bring.

    python benchmarks/labeling.py [scoring beams ray_tax scale ...] [--repeats 3] [--out benchmarks/results/labeling.json]

Without names all parts run, about an hour on two cores. A part run alone replaces itself in the file, with its own date.
"""

import argparse
import json
import os
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch and CTranslate2 read it

import beams
import ray_labeling
import scoring
import torch

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ("torch", "transformers", "ctranslate2", "ray")
PARTS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "scoring": lambda arguments: scoring.long_prompts(arguments.repeats),
    "scoring_by_architecture": lambda arguments: scoring.architectures(arguments.repeats),
    "scoring_demo": lambda arguments: scoring.demo(arguments.repeats),
    "beams": lambda arguments: beams.measure(arguments.repeats),
    "ray_tax": lambda arguments: ray_labeling.ray_tax(arguments.prompts, arguments.repeats),
    "scale": lambda arguments: ray_labeling.scale(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; all without a name")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--prompts", type=int, nargs="+", default=[3600, 7200], help="sizes of the Ray tax")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "labeling.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for name in arguments.parts or PARTS:
        with torch.inference_mode():
            found = PARTS[name](arguments)
        results[name] = {
            "measured": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
            "versions": {library: version(library) for library in LIBRARIES},
            "seed": 0,
            "results": found,
        }
        print(json.dumps({name: found}, indent=1), flush=True)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
