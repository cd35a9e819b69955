"""Training steps and scoring on one GPU: block masks and compiled layers against the dense mask, each bar beside its figure.

    python benchmarks/gpu_step.py [--out FILE] [--only step seven scoring] [--tiny]

Needs torch and transformers alone. Losses and scores are compared before anything is timed; what raises is written down and the
rest goes on. `--tiny` runs the same code uncompiled on a CPU with toy models, to see that it runs.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from gpu_report import FULL, SEED, TINY, Report
from gpu_scoring import scoring_part
from gpu_training import seven_part, step_part
from torch.nn.attention import flex_attention

MEASURED_BEFORE = {"edl_step_ms": 298, "ce_step_ms": 280, "scoring_ms": 197}
"""At d5f8c63 on one H200: 1.1 B step, and scoring in bf16."""


def bars(report: Report) -> None:
    """Each bar of the issue beside its figure."""
    found = report.found

    def figure(name: str, key: str) -> float:
        return float(found.get(name, {}).get(key, float("nan")))

    new, fresh = "step, blocks + compile edl", "step, fresh shapes"
    seven = max((v.get("mfu", 0.0) for k, v in found.items() if k.startswith("7B") and k.endswith("edl")), default=0.0)
    peak = max((v.get("peak_gib", 0.0) for k, v in found.items() if k.startswith("7B")), default=0.0)
    speed = figure(fresh, "tokens_per_second")
    report.add(
        "bars",
        step_times_today={"bar": 1.45, "is": figure("step, dense edl", "ms") / figure(new, "ms")},
        step_times_measured_before={"bar": 1.45, "is": MEASURED_BEFORE["edl_step_ms"] / figure(new, "ms")},
        step_mfu={"bar": 0.42, "is": figure(new, "mfu")},
        fresh_over_fixed_a_token={"bar": 1.05, "is": figure(new, "tokens_per_second") / speed},
        fresh_over_fixed_on_one_graph_a_token={
            "bar": 1.05, "is": figure("step, fixed shape on the graph for any", "tokens_per_second") / speed,
        },
        seven_mfu={"bar": 0.38, "goal": 0.57, "is": seven},
        seven_peak_gib={"bar": 115, "is": peak},
        scoring_times_today={"bar": 1.5, "is": figure("scoring, blocks + compile", "times_today")},
        scoring_times_measured_before={
            "bar": 1.5, "is": MEASURED_BEFORE["scoring_ms"] / figure("scoring, blocks + compile", "ms"),
        },
        references_apart_nats={"bar": 1e-4, "is": figure("references", "largest_apart_nats")},
    )  # fmt: skip


PARTS: dict[str, Callable[[Report], None]] = {"step": step_part, "scoring": scoring_part, "seven": seven_part}


def run(out: Path, tiny: bool = False, only: Sequence[str] = ()) -> dict[str, Any]:
    """All parts, or those named, most wanted first; what is found, also in `out` as it comes."""
    device = torch.device("cuda" if torch.cuda.is_available() and not tiny else "cpu")
    report = Report(out, device, TINY if tiny else FULL)
    gpu = torch.cuda.get_device_name() if device.type == "cuda" else None
    report.add("environment", gpu=gpu, torch=torch.__version__, seed=SEED)
    with patch.object(flex_attention, "_validate_device", lambda *_: None) if tiny else patch.dict({}):
        if tiny:
            torch.compiler.set_stance("force_eager")  # FlexAttention compiles no backward pass for a CPU
        for name, part in PARTS.items():
            if not only or name in only:
                with report.part(name):
                    part(report)
    bars(report)
    return report.found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gpu_step.json")
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=[])
    parser.add_argument("--tiny", action="store_true", help="toy models on a CPU")
    arguments = parser.parse_args()
    run(arguments.out, arguments.tiny, arguments.only)


if __name__ == "__main__":
    main()
