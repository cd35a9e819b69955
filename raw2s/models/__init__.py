"""Loading and saving Hugging Face models; the built-in tiny ones."""

from typing import Literal

Precision = Literal["auto", "fp32", "bf16"]
"""Of a model that labels, is tested or decodes: bf16 halves its memory and its time on a GPU; `auto` is bf16 there, fp32 on a CPU."""
