"""The two forms of a label."""

from typing import Literal

FormName = Literal["text", "classes"]
"""A text that a model writes, or one class of several."""
