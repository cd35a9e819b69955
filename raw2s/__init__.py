"""Bayesian WeakS-to-Strong: one strong language model learns from several weak, disagreeing labelers, on Ray."""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`raw2s.Student`, loaded when it is asked for: torch and transformers take seconds."""
    if name == "Student":
        from raw2s.use.student import Student  # noqa: PLC0415

        return Student
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
