"""The main job: split, teachers, labels, ceiling and students, preference, evaluation, report - all on Ray.

python jobs/full_pipeline.py [--config configs/demo.yaml] [--set key=value ...]
ray job submit --working-dir . -- python jobs/full_pipeline.py
"""

import argparse
import sys
from pathlib import Path

from raw2s.arguments import with_config
from raw2s.cli import guarded, run_command
from raw2s.config import load_config

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "demo.yaml")
    with_config(parser)
    arguments = parser.parse_args()
    return guarded("full_pipeline", lambda: run_command(load_config(arguments.config, arguments.set)))


if __name__ == "__main__":
    sys.exit(main())
