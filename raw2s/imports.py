"""The imports that a process of ours begins with: half a million objects, all of which stay."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = (50_000, 20, 100)
"""Of the garbage collector while they last: Python's own are 700, 10, 10."""


@contextmanager
def bulk_imports() -> Iterator[None]:
    """Around those imports. Python would look through what is loaded so far again and again, and once more when the process ends:
    3 of the 9 CPU seconds that a training worker's start and end take.
    """
    thresholds = gc.get_threshold()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(*thresholds)


@contextmanager
def without(module: str) -> Iterator[None]:
    """Let others find no such module, unless it is loaded: what they try to import and this process never uses."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # importing it raises ImportError
    try:
        yield
    finally:
        del sys.modules[module]
