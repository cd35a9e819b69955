"""Runs small enough for a test, and the main job in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from raw2s.status import RunStatus, StageStatus

ROOT = Path(__file__).resolve().parents[1]
JOB = str(ROOT / "jobs" / "full_pipeline.py")
LONG = {"teachers": [{"name": "gpt2", "model": "tiny-gpt2"}], "teacher_training": {"epochs": 400, "keep": "last"}}
"""Sections of a run whose one teacher trains for minutes."""


def tiny_run(storage: Path, **changes: object) -> dict:
    """A config small enough for a test: two teachers, tens of utterances, one epoch."""
    return {
        "name": "tiny",
        "storage": str(storage),
        "task": {"name": "slurp_slots", "n_teacher": 48, "n_student": 24, "n_validation": 16, "n_test": 24},
        "teachers": [{"name": "gpt2", "model": "tiny-gpt2"}, {"name": "opt", "model": "tiny-opt"}],
        "teacher_training": {"epochs": 1, "keep": "best", "checkpoint_every": 2},
        "labeling": {"beams": 2, "max_new_tokens": 24, "batch_size": 12},
        "student": {"model": "tiny-gpt-neox"},
        "student_training": {"epochs": 2, "keep": "best", "judge": "score", "judged_examples": 4},
        "methods": [{"method": "bayesian", "loss": {"gamma_max": 0.1}, "cdpo": True}],
        "preference": {"beams": 3, "training": {"epochs": 1, "learning_rate": 1e-5, "checkpoint_every": 1}},
        "evaluation": {"batch_size": 12, "resamples": 50},
        "ray": {"num_cpus": 8},
        **changes,
    }


def write_config(folder: Path, tree: dict) -> Path:
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


def start_pipeline(config: Path, *arguments: str, job: Sequence[str] = (JOB,)) -> subprocess.Popen[str]:
    """The main job in a process of its own, its output in a pipe."""
    return subprocess.Popen(
        [sys.executable, *job, "--config", str(config), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")},
    )


def kill_when(process: subprocess.Popen[str], words: str, then: Callable[[], bool]) -> str:
    """Read the output up to a line with `words`, and kill -9 as soon as `then` holds. Returns what was read."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if words in line:
            while process.poll() is None and not then():
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
            break
    process.wait(timeout=30)
    process.stdout.close()
    return "".join(seen)


def teacher_of(run: Path) -> StageStatus | None:
    """How far the teacher of a run of `LONG` is; None as long as nothing is known of it."""
    status = RunStatus.read(run)
    return next((own for own in status.stages if own.name == "teacher/gpt2"), None) if status else None


def wait_for_a_step(run: Path, *, seconds: float, check: Callable[[], None] = lambda: None) -> None:
    """Until the teacher of a run of `LONG` has taken a step, while `check` finds nothing wrong."""
    until = time.monotonic() + seconds
    while (teacher := teacher_of(run)) is None or teacher.steps is None or teacher.steps.done == 0:
        check()
        assert time.monotonic() < until, teacher
        time.sleep(0.2)


def finish(process: subprocess.Popen[str], *, seconds: float) -> str:
    """The output of a run that is waited for; one that takes longer is killed, and the test fails."""
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return output
