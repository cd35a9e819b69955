"""A beam step on a static cache in Triton: one program holds all beams of a prompt and all heads that share keys, and reads those once.

Rows are the beams of one head after those of another: query row r is beam r % M of the group's head r // M. Softmax is online and
in fp32: Milakov and Gimelshein 2018, Online normalizer calculation for softmax, Algorithm 3; base 2, for a GPU has no other.
"""

from typing import Any

import triton
import triton.language as tl

LOWEST = tl.constexpr(-1e30)
"""Below any score, and finite: a row that sees nothing of a block yet must not become NaN."""


@triton.jit
def seen_columns(
    mask: tl.tensor, mask_row: tl.tensor, columns: tl.tensor, BEAMS: tl.constexpr, BEAMS_UP: tl.constexpr, SCAN: tl.constexpr
) -> Any:
    """(the first column that any beam sees, one past the last)."""
    beam = tl.arange(0, BEAMS_UP)
    first, last = columns, 0
    for start in range(0, columns, SCAN):
        column = start + tl.arange(0, SCAN)
        within = (beam[:, None] < BEAMS) & (column[None, :] < columns)
        bias = tl.load(mask + beam[:, None] * mask_row + column[None, :], mask=within, other=float("-inf"))
        seen = tl.max(bias.to(tl.float32), 0) > float("-inf")
        first = tl.minimum(first, tl.min(tl.where(seen, column, columns), 0))
        last = tl.maximum(last, tl.max(tl.where(seen, column + 1, 0), 0))
    return first, last


@triton.jit
def attend(
    query: tl.tensor, keys: tl.tensor, values: tl.tensor, mask: tl.tensor, out: tl.tensor, scale: tl.tensor, columns: tl.tensor,
    query_prompt: tl.tensor, query_head: tl.tensor, query_beam: tl.tensor, key_prompt: tl.tensor, key_head: tl.tensor,
    mask_prompt: tl.tensor, mask_row: tl.tensor, key_heads: tl.tensor,
    BEAMS: tl.constexpr, BEAMS_UP: tl.constexpr, GROUPS: tl.constexpr, ROWS: tl.constexpr, SIZE: tl.constexpr, SIZE_UP: tl.constexpr,
    SCAN: tl.constexpr, BLOCK: tl.constexpr, STAGES: tl.constexpr,
) -> None:  # fmt: skip
    """out (B, M, H, D) = softmax(scale · q kᵀ + mask) v over the columns that any beam sees; `scale` holds log2 e as well."""
    prompt, head = tl.program_id(0) // key_heads, tl.program_id(0) % key_heads
    mask += prompt.to(tl.int64) * mask_prompt
    first, last = seen_columns(mask, mask_row, columns, BEAMS, BEAMS_UP, SCAN)
    first = first // BLOCK * BLOCK

    row, lane = tl.arange(0, ROWS), tl.arange(0, SIZE_UP)
    beam, own_head = row % BEAMS, head * GROUPS + row // BEAMS
    is_row, is_lane = row < BEAMS * GROUPS, lane < SIZE
    start = query + prompt.to(tl.int64) * query_prompt
    q_at = start + (own_head * query_head + beam * query_beam)[:, None] + lane[None, :]
    q = tl.load(q_at, mask=is_row[:, None] & is_lane[None, :], other=0.0)
    offset = prompt.to(tl.int64) * key_prompt + head.to(tl.int64) * key_head
    keys, values = keys + offset, values + offset

    best = tl.full((ROWS,), LOWEST, tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    sums = tl.zeros((ROWS, SIZE_UP), tl.float32)
    for at in tl.range(first, last, BLOCK, num_stages=STAGES):
        column = at + tl.arange(0, BLOCK)
        within = column < last
        k = tl.load(keys + column[None, :] * SIZE + lane[:, None], mask=is_lane[:, None] & within[None, :], other=0.0)
        v = tl.load(values + column[:, None] * SIZE + lane[None, :], mask=within[:, None] & is_lane[None, :], other=0.0)
        bias_at = mask + beam[:, None] * mask_row + column[None, :]
        bias = tl.load(bias_at, mask=is_row[:, None] & within[None, :], other=float("-inf")).to(tl.float32)
        score = tl.dot(q, k, input_precision="ieee") * scale + bias * 1.4426950408889634
        higher = tl.maximum(best, tl.max(score, 1))
        weight, shrunk = tl.exp2(score - higher[:, None]), tl.exp2(best - higher)
        total = total * shrunk + tl.sum(weight, 1)
        sums = tl.dot(weight.to(v.dtype), v, sums * shrunk[:, None], input_precision="ieee")
        best = higher

    out += (prompt * BEAMS).to(tl.int64) * key_heads * GROUPS * SIZE
    out_at = out + ((beam * key_heads * GROUPS + own_head) * SIZE)[:, None] + lane[None, :]
    tl.store(out_at, (sums / total[:, None]).to(out.dtype.element_ty), mask=is_row[:, None] & is_lane[None, :])


@triton.jit
def write(
    key: tl.tensor, value: tl.tensor, keys: tl.tensor, values: tl.tensor, column: tl.tensor, key_heads: tl.tensor,
    key_from: tl.tensor, key_from_head: tl.tensor, key_from_beam: tl.tensor,
    value_from: tl.tensor, value_from_head: tl.tensor, value_from_beam: tl.tensor, to_prompt: tl.tensor, to_head: tl.tensor,
    BEAMS: tl.constexpr, BEAMS_UP: tl.constexpr, SIZE: tl.constexpr, SIZE_UP: tl.constexpr,
) -> None:  # fmt: skip
    """keys[:, :, column[m]] = key[:, :, m], and values likewise."""
    prompt, head = (tl.program_id(0) // key_heads).to(tl.int64), tl.program_id(0) % key_heads
    beam, lane = tl.arange(0, BEAMS_UP), tl.arange(0, SIZE_UP)
    within = (beam[:, None] < BEAMS) & (lane[None, :] < SIZE)
    to = tl.load(column + beam, mask=beam < BEAMS, other=0)
    to_at = prompt * to_prompt + head * to_head + to[:, None] * SIZE + lane[None, :]
    key_at = prompt * key_from + head * key_from_head + beam[:, None] * key_from_beam + lane[None, :]
    value_at = prompt * value_from + head * value_from_head + beam[:, None] * value_from_beam + lane[None, :]
    tl.store(keys + to_at, tl.load(key + key_at, mask=within, other=0.0), mask=within)
    tl.store(values + to_at, tl.load(value + value_at, mask=within, other=0.0), mask=within)
