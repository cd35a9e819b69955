"""Compiles every kernel of raw2s.losses.cuda for a Hopper GPU, where there is none: what the interpreter does not check.

python tests/losses/compile_kernels.py      # Triton 3.6 or newer, without TRITON_INTERPRET
"""

from itertools import product
from typing import Any, get_args

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import MockTensor

from raw2s.losses.cuda import cross_entropy_kernels, cross_entropy_row_kernels, edl_kernels, edl_row_kernels, launch, scaling
from raw2s.losses.cuda.edl_rows import coefficients
from raw2s.losses.edl import EDLForm, Evidence

LOGITS, SUMS, TOKEN = MockTensor(torch.float32), MockTensor(torch.float64), MockTensor(torch.int64)
CASES = [(32_000, 32_000, MockTensor(torch.bfloat16)), (50_257, 50_272, MockTensor(torch.float16))]
"""Vocabularies, how far their rows lie apart, and gradients."""


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
    count = 0

    def compile_one(kernel: Any, *args: Any, **constants: Any) -> None:
        nonlocal count
        kernel.warmup(*args, **constants, BLOCK=launch.BLOCK, num_warps=launch.WARPS, grid=(1,))
        count += 1

    def compile_rows(kernel: Any, *args: Any, **constants: Any) -> None:
        nonlocal count
        kernel.warmup(*args, **constants, ROWS=launch.ROWS, num_warps=1, grid=(1,))
        count += 1

    g, q = coefficients()
    for vocabulary, width, grad in CASES:
        rows, padded = (LOGITS, width, vocabulary, width, TOKEN), {"PADDED": width != vocabulary}
        compile_one(cross_entropy_kernels.gradient, *rows, SUMS, grad, 2 * width, **padded)
        scaling.multiply.warmup(grad, LOGITS, width, BLOCK=scaling.BLOCK, num_warps=scaling.WARPS, grid=(1,))
        for soft in (False, True):
            compile_one(cross_entropy_kernels.sums, *rows, SUMS, SOFT=soft, **padded)
            compile_rows(cross_entropy_row_kernels.figures, SUMS, LOGITS if soft else None, None, SUMS, SUMS, 4096, 0.2)
        for evidence, clamped, kl in product(get_args(Evidence), (False, True), (False, True)):
            if clamped and evidence != "exp":
                continue
            options = {"EVIDENCE": evidence, "CLAMPED": clamped, "KL": kl, **padded}
            figures = {"EVIDENCE": evidence, "CLAMPED": clamped, "APART": clamped or evidence != "exp"}
            compile_rows(edl_row_kernels.shares, SUMS, LOGITS, SUMS, 4096, 0.2, 1.5, **figures)
            for form, prob in product(get_args(EDLForm), (None, LOGITS)):
                arguments = (SUMS, prob, prob, prob and SUMS, SUMS, SUMS, 4096, vocabulary, 0.2, 1e-4, 20.0, 1.5)
                compile_rows(edl_row_kernels.figures, *arguments, G=g, Q=q, FORM=form, KL=kl, **figures)
            compile_one(edl_kernels.sums, *rows, SUMS, 1.5, G=g, APART=clamped or evidence != "exp", **options)
            for form in get_args(EDLForm):
                compile_one(edl_kernels.target_sums, *rows, SUMS, SUMS, SUMS, 1.5, G=g, FORM=form, **options)
                for soft in (False, True):
                    compile_one(
                        edl_kernels.gradient, *rows, SUMS, SUMS, grad, 2 * width, 1.5, Q=q, SOFT=soft, FORM=form, **options
                    )  # fmt: skip
    print(f"{count} kernels compiled for sm_90")


if __name__ == "__main__":
    main()
