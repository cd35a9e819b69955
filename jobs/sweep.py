"""Search the values of any keys of a run config with Ray Tune; what they do not touch is made once.

python jobs/sweep.py [--config configs/sweep_demo.yaml] [--set key=value ...]
"""

import argparse
import sys
from pathlib import Path

from raw2s.arguments import sweep_keys
from raw2s.cli import guarded, sweep_command

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=sweep_keys(), formatter_class=formatter)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "sweep_demo.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="put a value over the sweep's config")
    arguments = parser.parse_args()
    return guarded("sweep", lambda: sweep_command(arguments.config, arguments.set))


if __name__ == "__main__":
    sys.exit(main())
