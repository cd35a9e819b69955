"""Compiles a beam step's kernels for a Hopper GPU, where there is none: what the interpreter does not check.

python tests/decoding/compile_step_kernels.py      # Triton 3.6 or newer, without TRITON_INTERPRET
"""

from itertools import product

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import MockTensor

from raw2s.decoding.cuda import step_kernels, steps

SIZES = [(1, 5, 64), (4, 5, 128), (7, 5, 64), (8, 10, 80), (1, 1, 64), (1, 5, 256)]
"""Heads that share keys, beams, a head's size."""


class Hopper:
    """All that compiling asks of a driver."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


def main() -> None:
    driver.set_active(Hopper())
    for (groups, beams, size), dtype in product(SIZES, (torch.bfloat16, torch.float16, torch.float32)):
        states, column = MockTensor(dtype), MockTensor(torch.int64)
        attention = step_kernels.attend.warmup(
            *[states] * 5, 0.18, 752, 3 * 1280 * beams, size, 3 * 1280, 20 * 752 * size, 752 * size, beams * 752, 752, 20,
            **steps.attend_constants(groups, beams, size, dtype.itemsize), grid=(1,),
        )  # fmt: skip
        writing = step_kernels.write.warmup(
            *[states] * 4, column, 20, *[3 * 1280 * beams, size, 3 * 1280] * 2, 20 * 752 * size, 752 * size,
            **steps.write_constants(beams, size), num_warps=1, grid=(1,),
        )  # fmt: skip
        for kernel in (attention, writing):
            print(groups, beams, size, dtype, kernel.metadata.name, kernel.metadata.shared, "bytes shared")


if __name__ == "__main__":
    main()
