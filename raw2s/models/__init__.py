"""Loading and saving Hugging Face models; the built-in tiny ones."""

from typing import Literal

Kind = Literal["generation", "classification"]
