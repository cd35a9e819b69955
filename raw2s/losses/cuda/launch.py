"""How row passes are launched: one program a row, over logits whose rows may lie apart."""

import math
from typing import Any

import torch
from torch import Tensor

BLOCK = 1024
"""Logits a program reads at once."""
WARPS = 8
ROWS = 32
"""Rows of which a program takes the figures at once: one a thread."""
LINE = 16
"""Widths that Triton knows to be multiples of this it reads in the largest pieces."""


def launch(kernel: Any, logits: Tensor, *args: Any, **constants: Any) -> None:
    """One program for every row of `logits`, on their device; without rows none.

    A kernel takes the logits, their rows' distance, V and the width to read, then `args`.
    """
    rows, vocabulary = logits.shape
    padded = math.ceil(vocabulary / LINE) * LINE
    width = padded if logits.stride(0) % LINE == 0 and logits.stride(0) >= padded else vocabulary
    constants |= {"PADDED": width != vocabulary, "BLOCK": BLOCK, "num_warps": WARPS}
    if rows:
        with torch.cuda.device_of(logits):
            kernel[(rows,)](logits, logits.stride(0), vocabulary, width, *args, **constants)


def launch_rows(kernel: Any, found: Tensor, *args: Any, **constants: Any) -> None:
    """Programs of `ROWS` rows each over what is one or two of in each row of `found`; without rows none."""
    if len(found):
        with torch.cuda.device_of(found):
            kernel[(math.ceil(len(found) / ROWS),)](found, *args, **constants, ROWS=ROWS, num_warps=1)


def finite(limit: float) -> float:
    """A clamp as a kernel takes it; 0 for none."""
    return 0.0 if math.isinf(limit) else limit
