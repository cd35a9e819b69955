"""Beam search over Hugging Face causal language models, every prompt one row of the batch and its beams a tree in that row.

A prompt is forwarded once. Each step forwards the newest token of every beam, (B, M) tokens with a mask of each beam's ancestors,
so no cache row is ever copied from beam to beam. On a CPU the search follows its data: prompts that are done leave the batch at
once, and so do columns that no beam sees any more. On a GPU, where that would cost more than it saves, it is `static_search`;
for a model that takes no positions it is `row_search`.

Shapes: B prompts still searched, M beams, P prompt tokens, S cache columns, T new tokens, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from raw2s.decoding.beam_rules import NEVER, Beams, advance, grow, prompt_positions, start, step_mask
from raw2s.decoding.grouped_attention import grouped_heads
from raw2s.decoding.logits import next_token_logits
from raw2s.decoding.packing import packable
from raw2s.decoding.row_search import row_search
from raw2s.decoding.static_search import can_capture, static_search
from raw2s.decoding.tree_cache import TreeCache

STEPS_OF_ROOM = 16
"""Cache columns are allocated for so many steps; then those that no beam sees any more are dropped."""


@dataclass(frozen=True)
class Hypotheses:
    """Per prompt M hypotheses, best mean log-probability first; those of -inf are none."""

    ids_BMT: Tensor
    tokens_BM: Tensor
    mean_logprob_BM: Tensor


def beam_search(
    model: PreTrainedModel,
    prompt_BP: Tensor,
    mask_BP: Tensor,
    *,
    beams: int,
    max_new_tokens: int,
    end_id: int | None,
    graph: bool = True,
) -> Hypotheses:
    """The top-`beams` continuations of left-padded prompts; a hypothesis ends with `end_id` or has `max_new_tokens` tokens.

    `graph`: as a CUDA graph where the model can be captured.
    """
    if not packable(model) or (graph and can_capture(model)):
        search = static_search if packable(model) else row_search
        state = search(model, prompt_BP, mask_BP, beams=beams, max_new_tokens=max_new_tokens, end_id=end_id)
        return Hypotheses(state.final_ids_BMT, state.final_tokens_BM, state.final_score_BM)
    return shrinking_search(model, prompt_BP, mask_BP, beams=beams, max_new_tokens=max_new_tokens, end_id=end_id)


def shrinking_search(
    model: PreTrainedModel, prompt_BP: Tensor, mask_BP: Tensor, *, beams: int, max_new_tokens: int, end_id: int | None
) -> Hypotheses:
    """`beam_search` where what is done leaves the batch."""
    config = model.config.get_text_config()
    columns, room = prompt_BP.shape[1], min(STEPS_OF_ROOM, max_new_tokens) * beams
    cache = TreeCache(config.num_hidden_layers, room=room)
    state = start(mask_BP, beams=beams, max_new_tokens=max_new_tokens, columns=columns + room, dtype=model.dtype)
    logits_B1V = next_token_logits(model, prompt_BP, mask_BP, prompt_positions(mask_BP), cache, last_only=True)
    found = Hypotheses(state.final_ids_BMT.clone(), state.final_tokens_BM.clone(), state.final_score_BM.clone())
    advance(state, logits_B1V.expand(-1, beams, -1), end_id)

    for step in range(2, max_new_tokens + 1):
        if state.done_B.any():
            _record(found, state, state.done_B)
            if state.done_B.all():
                return found
            _leave(state, cache)
        if columns + beams > state.bias_BMS.shape[2]:
            columns = _make_room(state, cache, columns, beams * min(STEPS_OF_ROOM, max_new_tokens + 1 - step))
        grow(state, torch.arange(columns, columns + beams, device=prompt_BP.device))
        columns += beams
        mask = step_mask(config, state, columns)
        with grouped_heads(model):
            logits_BMV = next_token_logits(model, state.token_BM, mask, state.position_B[:, None].expand(-1, beams), cache)
        advance(state, logits_BMV, end_id)
    _record(found, state, torch.ones_like(state.done_B))
    return found


def _record(found: Hypotheses, state: Beams, done_B: Tensor) -> None:
    prompt_D = state.prompt_B[done_B]
    found.ids_BMT[prompt_D] = state.final_ids_BMT[done_B]
    found.tokens_BM[prompt_D] = state.final_tokens_BM[done_B]
    found.mean_logprob_BM[prompt_D] = state.final_score_BM[done_B]


def _leave(state: Beams, cache: TreeCache) -> None:
    """Let the last rows that run on take the places of those done: few rows move."""
    kept = len(state.done_B) - int(state.done_B.sum())
    hole_N = state.done_B[:kept].nonzero()[:, 0]
    moved_N = (~state.done_B[kept:]).nonzero()[:, 0] + kept
    state.select(torch.arange(kept, device=hole_N.device).index_copy(0, hole_N, moved_N))
    cache.move_prompts(hole_N, moved_N, kept)


def _make_room(state: Beams, cache: TreeCache, columns: int, room: int) -> int:
    """Drop the columns that no beam sees, and allocate `room` more. Returns how many are in use."""
    seen_BS = (state.bias_BMS[:, :, :columns] == 0).any(dim=1)
    kept = int(seen_BS.sum(dim=1).max())
    column_BS = seen_BS.byte().argsort(dim=1, descending=True, stable=True)[:, :kept]
    cache.keep_columns(column_BS, room)
    bias_BMS = state.bias_BMS.take_along_dim(column_BS[:, None], dim=2)
    state.bias_BMS = torch.nn.functional.pad(bias_BMS, (0, room), value=NEVER)
    state.column_position_BS = torch.nn.functional.pad(state.column_position_BS.gather(1, column_BS), (0, room))
    return kept
