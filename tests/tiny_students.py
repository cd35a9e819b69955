"""The sheet of a student's folder made by hand."""

from typing import Any

from raw2s.use.sheet import Devel, Sheet, TestScore

CLASSES = ["billing", "delivery", "support"]
EDL = {"name": "edl", "evidence": "exp", "logit_clamp": 10.0}


def sheet_of(**changes: Any) -> Sheet:
    """Of three classes, read as a softmax."""
    fields: dict[str, Any] = {
        "version": "0",
        "run": "tiny",
        "student": "student/0-bayesian",
        "base_model": "tiny-llama",
        "task": "own",
        "form": "classes",
        "classes": CLASSES,
        "prompt": "{title}: {body}\n",
        "chat": False,
        "id": None,
        "loss": None,
        "beams": None,
        "max_new_tokens": None,
        "batch_size": 4,
        "test": TestScore(metric="accuracy", title="accuracy", value=0.75, ci95=(0.7, 0.8), examples=100),
        "devel": Devel(probability=[0.9, 0.8, 0.4, 0.3], right=[True, True, True, False]),
    }
    return Sheet(**fields | changes)
