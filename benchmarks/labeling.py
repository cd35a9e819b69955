"""Everything measured of labeling: scoring, beams, what Ray costs, and what more nodes bring.

    python benchmarks/labeling.py [scoring beams ray_tax scale ...] [--repeats 3] [--out benchmarks/results/labeling.json]

Without names all parts run, about an hour on two cores. A part run alone replaces itself in the file, with its own date.
"""

import argparse
import json
import os
from collections.abc import Callable
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch and CTranslate2 read it

import beams
import harness
import ray_labeling
import scoring
import torch

PARTS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "scoring": lambda arguments: scoring.long_prompts(arguments.repeats),
    "scoring_by_architecture": lambda arguments: scoring.architectures(arguments.repeats),
    "scoring_demo": lambda arguments: scoring.demo(arguments.repeats),
    "beams": lambda arguments: beams.measure(arguments.repeats),
    "ray_tax": lambda arguments: ray_labeling.ray_tax(arguments.prompts, arguments.repeats),
    "scale": lambda arguments: ray_labeling.scale(),
}


def main() -> None:
    parser = harness.parser(__doc__, "labeling.json", parts=PARTS, repeats=3)
    parser.add_argument("--prompts", type=int, nargs="+", default=[3600, 7200], help="sizes of the Ray tax")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    environment = harness.environment("torch", "transformers", "ctranslate2", "ray", seed=0)
    for name in arguments.parts or PARTS:
        with torch.inference_mode():
            found = PARTS[name](arguments)
        print(json.dumps({name: found}, indent=1), flush=True)
        harness.write_part(arguments.out, name, {"results": found}, environment)


if __name__ == "__main__":
    main()
