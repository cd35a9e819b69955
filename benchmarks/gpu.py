"""Everything measured on a GPU, in at most six minutes: the heads, a training step, beams, labeling, planned peaks.

    python benchmarks/gpu.py [heads step beams plan ...] [--tiny] [--out FILE] [--seconds 360]
    python benchmarks/gpu.py pipeline        # the main job under Ray, where Ray, DeepSpeed and MLflow are installed too
    python benchmarks/gpu.py learning        # the same of one teacher, on enough examples to learn from

torch 2.11, transformers 5.17 and triton are enough for all parts but those two. Every figure is printed and written as it is
measured, each bar beside the figure it holds for; a part that fails is written down with the end of its traceback, and the rest
goes on. `--tiny` runs the same code on small shapes and on a CPU too: it shows that the script works, and its figures mean nothing.
"""

import argparse
import importlib.metadata
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import torch  # noqa: E402

Part = Callable[[Path, bool], dict[str, Any]]
"""(file, tiny) -> what it found: a part prints each result, writes them all to the file, and returns them."""


# Each part's module is imported when its turn comes: one that cannot be imported is a part that failed.
def heads(file: Path, tiny: bool) -> dict[str, Any]:
    import gpu_heads  # noqa: PLC0415

    return gpu_heads.run(file, tiny=tiny)


def step(file: Path, tiny: bool) -> dict[str, Any]:
    import gpu_step  # noqa: PLC0415

    return gpu_step.run(file, tiny=tiny)


def beams(file: Path, tiny: bool) -> dict[str, Any]:
    import gpu_beams  # noqa: PLC0415

    return gpu_beams.run(file, tiny=tiny)


def plan(file: Path, tiny: bool) -> dict[str, Any]:
    import gpu_plan  # noqa: PLC0415

    return gpu_plan.run(file, tiny=tiny)


def pipeline(file: Path, tiny: bool) -> dict[str, Any]:
    import gpu_pipeline  # noqa: PLC0415

    return gpu_pipeline.run(file, tiny=tiny)


def learning(file: Path, tiny: bool) -> dict[str, Any]:
    import gpu_pipeline  # noqa: PLC0415

    return gpu_pipeline.run_learning(file, tiny=tiny)


PARTS: dict[str, Part] = {"heads": heads, "step": step, "beams": beams, "plan": plan}
MORE_PARTS: dict[str, Part] = {"pipeline": pipeline, "learning": learning}
"""Run when named only."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS | MORE_PARTS)}; {', '.join(PARTS)} without"
    )
    parser.add_argument("--tiny", action="store_true", help="small shapes, on a CPU too")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "gpu.json")
    parser.add_argument("--seconds", type=float, default=360, help="for all parts together; one that runs over is broken off")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.parts) - {*PARTS, *MORE_PARTS}):
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS | MORE_PARTS)}")
    if not (arguments.tiny or torch.cuda.is_available()):
        print("no CUDA device on this machine; with --tiny the parts run on its CPU")
        return 2
    results = {"environment": environment(arguments.tiny), "parts": {}}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + arguments.seconds
    signal.signal(signal.SIGALRM, _over)
    for part in arguments.parts or PARTS:
        own_file = arguments.out.with_name(f"{arguments.out.stem}_{part}.json")  # what is left if all of this is killed
        found = run_part(part, arguments.tiny, deadline - time.monotonic(), own_file)
        results["parts"][part] = found
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")
        own_file.unlink(missing_ok=True)
        if "failed" in found:
            print(json.dumps({"part": part, "failed": found["failed"]}), flush=True)
    return int(any("failed" in found for found in results["parts"].values()))


def environment(tiny: bool) -> dict[str, Any]:
    versions = {}
    for name in ("torch", "transformers", "triton", "deepspeed", "ray"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    python = sys.version.split()[0]
    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), "card": card, "tiny": tiny, "python": python} | versions


def run_part(part: str, tiny: bool, seconds: float, file: Path) -> dict[str, Any]:
    """One part within its time: what it found, with `failed` where it raised something, and the seconds it took."""
    if seconds <= 0:
        return {"failed": ["no time left"]}
    start = time.monotonic()
    file.unlink(missing_ok=True)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        found = (PARTS | MORE_PARTS)[part](file, tiny)
    except (Exception, Over):
        found = (json.loads(file.read_text()) if file.exists() else {}) | {"failed": traceback.format_exc().splitlines()[-24:]}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return found | {"part_seconds": round(time.monotonic() - start, 1)}


class Over(BaseException):
    """The time for all parts is over. No Exception: a part that records its own failures would go on."""


def _over(number: int, frame: Any) -> None:
    raise Over


if __name__ == "__main__":
    sys.exit(main())
