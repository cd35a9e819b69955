"""The key-value cache of a beam search: one row per prompt, in which the beams are a tree.

Every beam's new token takes one column of its prompt's row, and a beam sees the prompt and its own ancestors through a mask.
So the prompt is stored once, and choosing beams moves no keys or values: only the mask follows the beams.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from raw2s.decoding import step_attention


class TreeLayer(CacheLayerMixin):
    """Keys and values of one layer in buffers that tokens are written into, (B, H, columns, D)."""

    is_sliding = False  # the search's masks hold the window of sliding attention
    is_croppable = False

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.columns = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys = _buffer(key_states, key_states.shape[2] + self.room)
        self.values = _buffer(value_states, key_states.shape[2] + self.room)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        start, self.columns = self.columns, self.columns + key_states.shape[2]
        self.keys[:, :, start : self.columns] = key_states
        self.values[:, :, start : self.columns] = value_states
        return self.keys[:, :, : self.columns], self.values[:, :, : self.columns]

    def get_seq_length(self) -> int:
        return self.columns

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.columns + query_length, 0

    def get_max_length(self) -> int:
        return -1


class TreeCache(Cache):
    """`room` columns are kept free after the prompt; `keep_columns` makes room again."""

    layers: list[TreeLayer]  # type: ignore[assignment]

    def __init__(self, layers: int, room: int) -> None:
        super().__init__(layers=[TreeLayer(room) for _ in range(layers)])

    def move_prompts(self, to_N: Tensor, from_N: Tensor, prompts: int) -> None:
        """Copy the rows `from_N` over the rows `to_N`, then keep the first `prompts` rows."""
        for layer in self.layers:
            used = layer.columns
            for name in ("keys", "values"):
                buffer = getattr(layer, name)
                buffer[to_N, :, :used] = buffer[from_N, :, :used]
                setattr(layer, name, buffer[:prompts])

    def keep_columns(self, columns_BC: Tensor, room: int) -> None:
        """Keep only the given columns of every prompt, in that order, with `room` free ones after them."""
        prompts, kept = columns_BC.shape
        row_B1 = torch.arange(prompts, device=columns_BC.device)[:, None]
        for layer in self.layers:
            for name in ("keys", "values"):
                buffer = getattr(layer, name)
                fresh = _buffer(buffer, kept + room)
                fresh[:, :, :kept] = buffer[row_B1, :, columns_BC].transpose(1, 2)
                setattr(layer, name, fresh)
            layer.columns = kept


@dataclass
class Place:
    """Where the next tokens go, the same in every layer: M columns; None: they are a prompt, from column 0 on."""

    column_M: Tensor | None = None


class StaticTreeLayer(TreeLayer):
    """A layer whose buffers are allocated once, for all columns, and stay where they are."""

    def __init__(self, columns: int, place: Place) -> None:
        super().__init__(room=columns)
        self.place = place

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        # Zeros: a column that no beam sees yet has no weight, but what is there must be numbers.
        self.keys, self.values = (_buffer(states, self.room).zero_() for states in (key_states, value_states))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        if self.place.column_M is None:
            self.keys[:, :, : key_states.shape[2]] = key_states
            self.values[:, :, : key_states.shape[2]] = value_states
            return key_states, value_states
        step_attention.write(self.keys, self.values, self.place.column_M, key_states, value_states)
        return self.keys, self.values


class StaticTreeCache(Cache):
    """After a prompt, every step attends to all `columns`, used or not, under the search's mask."""

    def __init__(self, layers: int, columns: int) -> None:
        self.place = Place()
        super().__init__(layers=[StaticTreeLayer(columns, self.place) for _ in range(layers)])


def _buffer(states_BHTD: Tensor, columns: int) -> Tensor:
    prompts, heads, _, size = states_BHTD.shape
    return states_BHTD.new_empty(prompts, heads, columns, size)
