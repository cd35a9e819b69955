"""GPUs by a word of their name: memory, operations and memory traffic a second."""

from typing import NamedTuple


class Card(NamedTuple):
    memory_gib: float
    """What a program can have of it, as the driver reports it."""
    flops: float
    """Dense bf16 operations a second."""
    bandwidth: float
    """Bytes a second from its memory."""


CARDS = {
    "H200": Card(139.8, 989e12, 4.8e12),
    "H100 PCIe": Card(79.2, 756e12, 2.0e12),
    "H100": Card(79.2, 989e12, 3.35e12),
    "A100": Card(79.2, 312e12, 2.04e12),
    "L40S": Card(44.4, 362e12, 0.86e12),
    "L4": Card(22.0, 121e12, 0.3e12),
    "A10": Card(22.0, 125e12, 0.6e12),
    "B200": Card(178.4, 2250e12, 8.0e12),
}
"""By a word of the device's name, the first that fits; operations and bandwidth from NVIDIA's data sheets (A100: of 80 GB)."""
