"""Beam search for models that are not `packable`: every beam a row of the batch, its cache copied from its parent's row.

Slower than a tree of beams, for every beam keeps the prompt's keys and values, and each step moves them; but all that such a
model asks for is a (rows, tokens) mask.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel

from raw2s.decoding.beam_rules import Beams, advance, start
from raw2s.decoding.heads import output_head
from raw2s.decoding.logits import head_logits


def row_search(
    model: PreTrainedModel, prompt_BP: Tensor, mask_BP: Tensor, *, beams: int, max_new_tokens: int, end_id: int | None
) -> Beams:
    """`search.beam_search` for a model that takes no positions; the result is in the final fields."""
    prompts, width = prompt_BP.shape
    cache: Any = DynamicCache(config=model.config)
    state = start(mask_BP, beams=beams, max_new_tokens=max_new_tokens, columns=width, dtype=model.dtype)
    advance(state, _next_logits(model, prompt_BP, mask_BP, cache)[:, None].expand(-1, beams, -1), end_id)
    cache.batch_repeat_interleave(beams)
    mask_XS = mask_BP.repeat_interleave(beams, dim=0)  # X = B * M rows
    first_B1 = torch.arange(0, prompts * beams, beams, device=prompt_BP.device)[:, None]
    for _ in range(1, max_new_tokens):
        if state.done_B.all():
            break
        cache.reorder_cache((first_B1 + state.parent_BM).flatten())
        mask_XS = torch.nn.functional.pad(mask_XS, (0, 1), value=1)
        logits_XV = _next_logits(model, state.token_BM.reshape(-1, 1), mask_XS, cache)
        advance(state, logits_XV.unflatten(0, (prompts, beams)), end_id)
    return state


def _next_logits(model: PreTrainedModel, ids_RT: Tensor, mask_RS: Tensor, cache: Cache) -> Tensor:
    """The logits after the last token of every row, (R, V); the mask is over the cache and these tokens."""
    decoder = model.get_decoder()
    hidden_RTH = decoder(input_ids=ids_RT, attention_mask=mask_RS, past_key_values=cache, use_cache=True).last_hidden_state
    return head_logits(output_head(model), hidden_RTH[:, -1])
