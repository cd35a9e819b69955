"""How far each stage is: a Ray actor the workers write to, and the terminal that shows it.

On a terminal every running stage has a bar; elsewhere (a job's log, CI) every stage has a line when it starts and ends.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

REFRESH_SECONDS = 0.5

State = tuple[int, int, str]
"""(done, total, note)."""
Point = dict[str, float]


@ray.remote(num_cpus=0)
class Board:
    """The latest progress of every stage, wherever its workers run."""

    def __init__(self) -> None:
        self.states: dict[str, State] = {}
        self.points: list[tuple[str, Point]] = []
        self.dropped = 0

    def update(self, stage: str, done: int, total: int, note: str) -> None:
        self.states[stage] = (done, total, note)

    def advance(self, stage: str, amount: int, total: int, note: str) -> None:
        self.states[stage] = (self.states.get(stage, (0, total, ""))[0] + amount, total, note)

    def record(self, stage: str, point: Point) -> None:
        """A point of a stage's training curve, with the time in milliseconds since 1970."""
        self.points.append((stage, {**point, "time": time.time() * 1000}))

    def snapshot(self) -> dict[str, State]:
        return self.states

    def progress(self, seen: int) -> tuple[dict[str, State], list[tuple[str, Point]]]:
        """How far every stage is, and the points after the first `seen`: only what has arrived is dropped, for an answer may be late."""
        del self.points[: seen - self.dropped]
        self.dropped = seen
        return self.states, self.points


def open_board() -> Any:
    """A board on the driver's node: with another one it would be lost, and the curves with it."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Board.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]


class StageDisplay:
    """Shows the stages of one run; used as a context manager. Thread-safe: stages run in threads."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live = console.is_terminal
        self.bars = Progress(
            SpinnerColumn(), TextColumn("{task.description:<34}"), BarColumn(bar_width=24), TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("[dim]{task.fields[note]}"), console=console, transient=True,
        )  # fmt: skip
        self.tasks: dict[str, TaskID] = {}
        self.board: Any = None
        self.seen = 0
        """Points that the board has told."""
        self.start = time.monotonic()
        self._stop = threading.Event()
        self._poller = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> "StageDisplay":
        if self.live:
            self.bars.start()
            self._poller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self.live:
            self._poller.join()
            self.bars.stop()

    def say(self, text: str, style: str | None = None) -> None:
        self.console.print(
            f"[{time.monotonic() - self.start:6.1f} s] {text}", style=style, markup=False, highlight=False, soft_wrap=True
        )

    def warn(self, text: str) -> None:
        self.say(f"warning: {text}", style="yellow")

    def started(self, stage: str) -> None:
        if self.live:
            self.tasks[stage] = self.bars.add_task(stage, total=None, note="starting")
        else:
            self.say(f"{stage}: started")

    def finished(self, stage: str, note: str) -> None:
        if stage in self.tasks:
            self.bars.remove_task(self.tasks.pop(stage))
        self.say(f"{stage}: {note}")

    def progress(self) -> tuple[dict[str, State], list[tuple[str, Point]]]:
        """How far every stage is, and the points of all training curves since this was called last."""
        states, points = _answer(self.board.progress, ({}, []), self.seen)
        self.seen += len(points)
        return states, points

    def _poll(self) -> None:
        while not self._stop.wait(REFRESH_SECONDS):
            if self.board is None:
                continue
            states: dict[str, State] = _answer(self.board.snapshot, {})
            for stage, (done, total, note) in states.items():
                task = self.tasks.get(stage)
                if task is not None:
                    self.bars.update(task, completed=done, total=total, note=note)


def _answer(method: Any, otherwise: Any, *asked: Any) -> Any:
    """What the board says, or `otherwise`: a bar or a curve that stands still is better than a run that stops."""
    try:
        return ray.get(method.remote(*asked), timeout=5)
    except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError):
        return otherwise


def brief(metrics: dict[str, Any], show: Callable[[Any], str] = lambda v: f"{v:.4g}" if isinstance(v, float) else str(v)) -> str:
    """`final_loss 0.31, epoch_kept 6`: a stage's numbers in a line."""
    return ", ".join(f"{key} {show(value)}" for key, value in metrics.items() if isinstance(value, (int, float)))
