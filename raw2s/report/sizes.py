"""The tables of `raw2s plan`: what every stage takes of memory, time and disk; and what to set where one does not fit."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from rich.console import Group
from rich.table import Table
from rich.text import Text

from raw2s.report.table import plain_table
from raw2s.sizing.stage import CUDA_BYTES, GIB, PROCESS_BYTES, Device, StageSize

_PARTS = {
    "weights": "wghts", "gradients": "grads", "optimizer": "optim", "activations": "activ", "head": "logit", "cache": "cache",
    "buffers": "buffs",
}  # fmt: skip
"""Parts of a stage's memory, and their headings: five letters, for all of them to fit 80 columns."""


def sizes_tables(sizes: Sequence[StageSize], device: Device, seeds: int) -> Group:
    """A rich renderable: the peak of each stage's memory by its parts, then its work, then what does not fit."""
    lines = [*_advice(sizes, device), *_host(sizes), *_notes(device, seeds)]
    return Group(Text(), _memory(sizes, device), Text(), _work(sizes, device), Text(), *map(Text, lines), Text())


def _memory(sizes: Sequence[StageSize], device: Device) -> Table:
    memory = _stage_table("GiB of one process", *_PARTS.values(), "peak")
    for size in sizes:
        parts = [_gib(size.memory.get(part, 0.0)) for part in _PARTS]
        memory.add_row(size.stage, *parts, _gib(size.peak) + ("" if size.fits(device) else "*"))
    return memory


def _stage_table(*headings: str) -> Table:
    table = plain_table()
    table.add_column(headings[0], overflow="fold", min_width=20)
    for heading in headings[1:]:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def sizes_as_json(sizes: Sequence[StageSize], device: Device, seeds: int) -> str:
    """The same figures, in bytes and operations, of one seed."""
    stages = [
        asdict(size)
        | {"framework": size.framework, "peak": size.peak, "fits": size.fits(device), "gpu_hours": size.gpu_hours(device)}
        for size in sizes
    ]
    card = {"gpu": device.name, "memory": device.card_bytes, "mfu": device.utilization}
    return json.dumps({"device": card, "seeds": seeds, "stages": stages}, indent=1, default=str)


def _work(sizes: Sequence[StageSize], device: Device) -> Table:
    work = _stage_table("work of one seed", "weights", "tokens", "FLOPs", "GPU-hours", "disk GiB", "at most")
    for size in sizes:
        hours = f"{size.gpu_hours(device):,.2f}" if size.gpus else ""
        disk = (_gib(size.disk), _gib(size.disk_while))
        work.add_row(size.stage, _short(size.parameters), _short(size.tokens), f"{size.flops:.1e}", hours, *disk)
    work.add_section()
    all_hours = sum(size.gpu_hours(device) for size in sizes)
    tokens, flops, disk_bytes = (sum(getattr(size, name) for size in sizes) for name in ("tokens", "flops", "disk"))
    work.add_row("all", "", _short(tokens), f"{flops:.1e}", f"{all_hours:,.2f}" if all_hours else "", _gib(disk_bytes), "")
    return work


def _short(count: float) -> str:
    """In thousands, millions or billions."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f}"


def _gib(value: float) -> str:
    """Empty for next to nothing."""
    return f"{value / GIB:.1f}" if value >= 0.05 * GIB else ""


def _advice(sizes: Sequence[StageSize], device: Device) -> Iterator[str]:
    for size in sizes:
        if size.fits(device):
            continue
        room = device.room(size.gpus) or 0.0
        what = f"{size.stage} takes {size.peak / GIB:.1f} GiB of {room / GIB:.1f}"
        if size.advice is None:
            yield f"{what}: no setting here makes it fit; take a larger card, or a smaller model than {size.model}"
        else:
            yield f"{what}: set {', '.join(f'{key}={_value(value)}' for key, value in size.advice.items())}"


def _host(sizes: Sequence[StageSize]) -> Iterator[str]:
    for size in sizes:
        if size.host:
            yield f"{size.stage} keeps {size.host / GIB:.1f} GiB of a worker in host memory"


def _notes(device: Device, seeds: int) -> Iterator[str]:
    yield (
        f"A row is the moment of its peak (*: more than there is), which holds {PROCESS_BYTES / GIB:.1f} GiB of libraries on a CPU and "
        f"{CUDA_BYTES / GIB:.1f} on a GPU. GPU-hours: of an {device.name} at {device.utilization:.0%} of its operations, in beams of its "
        "bandwidth. Tokens: of a sample of the run's examples; unknown answers are as long as those of A. Not counted: validation, "
        "the memory that allocators keep unused."
    )
    if seeds > 1:
        yield f"The config has {seeds} seeds: work and disk are {seeds} times as much, less what they share."


def _value(value: object) -> str:
    """As `--set` takes it."""
    dump = getattr(value, "model_dump", None)
    return json.dumps(dump(include={"rank"}) if dump else value).strip('"')
