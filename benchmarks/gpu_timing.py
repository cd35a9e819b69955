"""Time on a GPU, and on a CPU where a script is only tried out."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


def seconds(work: Callable[[], Any], repeats: int) -> float:
    """Median wall time between synchronisations, after one run that does not count."""
    taken = []
    for _ in range(repeats + 1):
        wait()
        start = time.perf_counter()
        work()
        wait()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def repeated(work: Callable[[], Any], times: int = 20) -> float:
    """Seconds of one of many: as a graph on a GPU, where launching would take longer than the work."""
    if not torch.cuda.is_available():
        return seconds(work, times)
    work()
    wait()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(times):
            work()
    return seconds(graph.replay, 5) / times
