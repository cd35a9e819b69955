"""A prompt forwarded once for all its continuations: token trees, several to a row, under a block mask.

A tree holds a prompt and continuations of it, every shared prefix once, depth first. Then one number a token says all of the
attention mask: token q sees token k where `k <= q < end[k]`, for the tokens from k to `end[k]` are those that go on from k.
A model that cannot be told positions (see `packable`) gets every text, prompt and one continuation, in a row of its own.
"""

import inspect
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class TokenTree:
    """Tokens depth first: their ids, their positions in the text, and `ends`, one past the last token that goes on from each.

    `predictors[c]`: for every token of continuation c, the node whose logits predict it.
    """

    ids: list[int]
    positions: list[int]
    ends: list[int]
    predictors: list[list[int]]


def token_tree(prompt: list[int], continuations: Sequence[list[int]]) -> TokenTree:
    """The tree of a prompt of one token or more and its continuations, of which what they share is there once.

    A continuation's last token is predicted and never read, so it gets no node. Without continuations: the prompt alone.
    """
    ids, positions, ends = list(prompt), list(range(len(prompt))), [0] * len(prompt)
    predictors: list[list[int]] = [[] for _ in continuations]
    path = list(range(len(prompt)))  # the nodes of the text that was written last
    previous: list[int] = []
    for c in sorted(range(len(continuations)), key=continuations.__getitem__):
        read = continuations[c][:-1]
        branch = len(prompt) + _shared_tokens(previous, read)
        for node in path[branch:]:
            ends[node] = len(ids)
        del path[branch:]
        own = read[branch - len(prompt) :]
        positions.extend(range(branch, branch + len(own)))
        path.extend(range(len(ids), len(ids) + len(own)))
        ids.extend(own)
        ends.extend([0] * len(own))
        predictors[c] = path[len(prompt) - 1 :]
        previous = read
    for node in path:
        ends[node] = len(ids)
    return TokenTree(ids, positions, ends, predictors)


def separate_texts(tree: TokenTree) -> list[TokenTree]:
    """A tree for each of the tree's continuations, in their order, with nothing shared; of none, the prompt alone."""
    texts = []
    for predictors in tree.predictors:
        nodes = [*range(predictors[0]), *predictors]
        path = list(range(len(nodes)))
        texts.append(TokenTree([tree.ids[n] for n in nodes], path, [len(nodes)] * len(nodes), [path[predictors[0] :]]))
    return texts or [tree]


def _shared_tokens(one: list[int], other: list[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@dataclass
class PackedRows:
    """R rows of T tokens, each a run of trees and then padding; token q of a row sees token k where `k <= q < end[k]`."""

    input_ids_RT: Tensor
    position_ids_RT: Tensor
    end_RT: Tensor
    tokens: int
    """In all rows, padding not counted."""

    def to(self, device: torch.device) -> "PackedRows":
        return PackedRows(self.input_ids_RT.to(device), self.position_ids_RT.to(device), self.end_RT.to(device), self.tokens)


def row_layout(lengths: Sequence[int], hidden_size: int) -> list[list[int]]:
    """Indices in rows as wide as makes the whole cheapest for a model of this hidden size.

    A layer costs a token some 24 H^2 operations in its matrices and 4 H T in attention over a row of T, padding included:
    narrow rows waste on padding, wide ones on attention.
    """
    total, longest = sum(lengths), max(lengths)
    best, best_cost = _first_fit(lengths, longest), float("inf")
    for rows in range(total // longest, 0, -1):  # wider and wider
        width = max(longest, -(-total // rows))
        if total * (6 * hidden_size + width) >= best_cost:
            break  # no padding at all would not make up for such a width
        layout = _first_fit(lengths, width)
        filled = max(sum(lengths[i] for i in row) for row in layout)
        cost = len(layout) * filled * (6 * hidden_size + filled)
        if cost < best_cost:
            best, best_cost = layout, cost
    return best


def _first_fit(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Indices in rows of at most `width`, longest first, each in the first row that has room."""
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((r for r, free in enumerate(room) if free >= lengths[index]), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(width)
        rows[row].append(index)
        room[row] -= lengths[index]
    return rows


Layout = Literal["rows", "bucketed_rows", "one_row", "one_text_a_row"]
"""Rows as `row_layout` has them; the same in a `bucket`'s width; all trees in one row of a `bucket`'s width, for attention that
skips what no token sees; a row for each of the trees, which `separate_texts` made, for a model that is not `packable`."""
BUCKET_STEP: dict[Layout, int] = {"bucketed_rows": 16, "one_row": 128}
"""The narrowest step between widths: every row of many pays for it, and one row is in blocks of 128 anyway."""


def pack_rows(
    trees: Sequence[TokenTree], *, padding: int, hidden_size: int, layout: Layout = "rows"
) -> tuple[PackedRows, list[int]]:
    """The trees in rows, and the flat index, row * T + column, at which each tree begins.

    Rows are padded on the right with the id `padding`; a padding token sees itself only.
    """
    lengths = [len(tree.ids) for tree in trees]
    match layout:
        case "one_row":
            placed = [list(range(len(trees)))]
        case "one_text_a_row":
            placed = [[i] for i in range(len(trees))]
        case _:
            placed = row_layout(lengths, hidden_size)
    width = max(sum(lengths[i] for i in row) for row in placed)
    if layout in BUCKET_STEP:
        width = bucket(width, BUCKET_STEP[layout])
        placed = _first_fit(lengths, width)
    ids = np.full((len(placed), width), padding)
    positions = np.zeros_like(ids)
    ends = np.tile(np.arange(1, width + 1), (len(placed), 1))
    starts = [0] * len(trees)
    for r, row in enumerate(placed):
        column = 0
        for i in row:
            tree, here = trees[i], slice(column, column + len(trees[i].ids))
            # An `array` takes a list three times as fast as a tensor does, and a GPU waits for its first batch.
            ids[r, here] = array("q", tree.ids)
            positions[r, here] = array("q", tree.positions)
            ends[r, here] = array("q", tree.ends)
            ends[r, here] += column
            starts[i] = r * width + column
            column = here.stop
    return PackedRows(torch.from_numpy(ids), torch.from_numpy(positions), torch.from_numpy(ends), sum(lengths)), starts


def bucket(tokens: int, least: int) -> int:
    """The next of a few widths: multiples of `least`, a power of two, and at most sixteen from a power of two to the next.

    A new width costs a GPU a compiled kernel or a plan; these cost at most a sixteenth of padding, beside the least.
    """
    step = max(least, 1 << max(0, (tokens - 1).bit_length() - 5))
    return -(-tokens // step) * step


def attention_mask(rows: PackedRows, config: PreTrainedConfig, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
    """What the decoder takes as `attention_mask`: (R, 1, T, T), 0 where a token is seen and -inf where not.

    Additive, for "eager" attention adds what it is given, and SDPA takes either. With sliding windows (Mistral, Qwen2) a token
    sees that many positions back; a dict of masks by layer type where only some layers slide.
    """
    index_T = torch.arange(rows.end_RT.shape[1], device=rows.end_RT.device)
    sees_RTT = (index_T <= index_T[:, None]) & (index_T[:, None] < rows.end_RT[:, None, :])

    def within(window: int | None) -> Tensor:
        seen_RTT = sees_RTT
        if window is not None:
            seen_RTT = sees_RTT & (rows.position_ids_RT[:, :, None] - rows.position_ids_RT[:, None, :] < window)
        return torch.zeros(seen_RTT.shape, dtype=dtype, device=seen_RTT.device).masked_fill_(~seen_RTT, -torch.inf)[:, None]

    return by_layer_type(rows, config, within)


def by_layer_type(rows: PackedRows, config: PreTrainedConfig, within: Callable[[int | None], Any]) -> Any | dict[str, Any]:
    """`within(window)`, the mask of a sliding window in positions (None: no window), as the model's layers want it."""
    config = config.get_text_config()
    window = getattr(config, "sliding_window", None)
    if window is None or rows.position_ids_RT.max() < window:
        return within(None)
    if getattr(config, "layer_types", None) is None:
        return within(window)
    return {"full_attention": within(None), "sliding_attention": within(window)}


def padding_mask(rows: PackedRows) -> Tensor:
    """Of rows of one text each: (R, T), 1 where a token is, 0 where padding is."""
    index_T = torch.arange(rows.end_RT.shape[1], device=rows.end_RT.device)
    return (index_T < rows.end_RT[:, :1]).long()  # a text's first token ends where the text does


def packable(model: PreTrainedModel) -> bool:
    """Whether the model can be told the positions of its tokens, without which no tree of texts fits a row.

    BLOOM cannot: ALiBi adds slope * (position of the key) to every score, and BLOOM counts that position itself, as the sum of
    a (rows, tokens) mask up to the key's column. Of two continuations of a prompt the second would stand behind the first,
    further from the prompt than it is; nor can such a mask say that it does not see the first. MPT and Falcon with ALiBi count
    columns too. Raises ValueError for a recurrent model, which carries a state from one token to the next: no mask keeps texts
    in a batch apart, nor padding from the text.
    """
    if model._is_stateful:
        raise ValueError(
            f"{model.config.model_type} is recurrent: its state runs along the row through padding and other texts alike; "
            "take a model of attention layers only, such as GPT-2, OPT, GPT-NeoX, Llama, Qwen2, Mistral or BLOOM"
        )
    decoder: Any = model.get_decoder()
    takes_positions = "position_ids" in inspect.signature(decoder.forward).parameters
    return takes_positions and not getattr(model.config.get_text_config(), "alibi", False)
