"""The main job under Ray on one GPU, all its processes sharing it, in bf16 throughout.

`benchmarks/gpu.py pipeline` runs every stage of the demo on a few utterances, `benchmarks/gpu.py learning` one teacher and a student on
the demo's own number of them. Both want Ray, DeepSpeed and MLflow, installed or on PYTHONPATH. Four to five minutes each, nearly all of
them the start of processes.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
SHARE = 0.2
"""Of the GPU, for each of at most five processes side by side."""
SIZES = (
    "task.n_teacher=96", "task.n_student=48", "task.n_validation=16", "task.n_test=48", "teacher_training.epochs=1",
    "labeling.batch_size=24", "student_training.epochs=1", "student_training.workers=1", "ceiling_training.epochs=1",
    "preference.prompts=24", "evaluation.resamples=50",
)  # fmt: skip
ONE_TEACHER = (
    "teachers=[{name: gpt-neox, model: tiny-gpt-neox}]", "weights.loss=uniform", "student_training.workers=1",
    "methods=[{method: bayesian, loss: {gamma_max: 0.02, kl_weight: 1.0e-6}}]",
)  # fmt: skip
TRAININGS = ("teacher_training", "student_training", "ceiling_training", "preference.training")


def run(out: Path, tiny: bool = False) -> dict[str, Any]:
    """All stages; scores and stage times, also in `out`. `tiny` asks for no GPU. Raises RuntimeError with the end of the job's output."""
    # One training without fp32 master weights.
    return _run(out, SIZES, 3, () if tiny else ("ceiling_training.optimizer_states=bf16",), tiny=tiny)


def run_learning(out: Path, tiny: bool = False) -> dict[str, Any]:
    """One teacher, ceiling and student on as many examples as the demo has; else as `run`."""
    return _run(out, (*ONE_TEACHER, *(SIZES[:4] if tiny else ())), 1, (), tiny=tiny)


def _run(out: Path, sizes: tuple[str, ...], teachers: int, more: tuple[str, ...], *, tiny: bool) -> dict[str, Any]:
    on_gpu = [f"{training}.{setting}" for training in TRAININGS for setting in (f"gpus_per_worker={SHARE}", "precision=bf16")]
    on_gpu += [f"{model}.num_gpus={SHARE}" for model in (*(f"teachers.{i}" for i in range(teachers)), "student")]
    if not tiny:
        assert torch.cuda.is_available(), "this part wants a GPU, or --tiny"
    with tempfile.TemporaryDirectory() as storage:
        output = job([*sizes, *more, f"storage={storage}", *([] if tiny else on_gpu)])
        results = json.loads((Path(storage) / "demo" / "results.json").read_text())
    systems = [(system.get("name") or system["method"], system["score"]) for system in
               (*results["teachers"], results["ceiling"], *results["students"])]  # fmt: skip
    found = {
        "scores": systems, "pgr": [student["pgr"] for student in results["students"]],
        "stage_seconds": {stage["name"]: round(stage["seconds"], 1) for stage in results["stages"]},
        "last_line": output.splitlines()[-1],
    }  # fmt: skip
    print(json.dumps(found), flush=True)
    out.write_text(json.dumps(found, indent=1) + "\n")
    return found


def job(overrides: list[str]) -> str:
    """The main job's output. Its processes end with this one, also when the time is over."""
    command = [sys.executable, str(ROOT / "jobs" / "full_pipeline.py"), "--config", str(ROOT / "configs" / "demo.yaml")]
    command += [part for override in overrides for part in ("--set", override)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    try:
        output, _ = process.communicate()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
    if process.returncode:
        raise RuntimeError(f"the main job ended with {process.returncode}:\n" + "\n".join(output.splitlines()[-40:]))
    return output
