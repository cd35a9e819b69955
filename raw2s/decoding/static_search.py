"""The beam search for a GPU: every step the same work on the same memory, captured once as a CUDA graph and replayed.

A step of a large model is hundreds of small kernels, and to launch them one by one takes many times as long as to run them. A
graph launches them all at once, if their shapes and addresses never change: so the cache has columns for all steps, prompts that
are done stay in the batch, masked, and the device is asked only every few steps whether any prompt is left.
The graph is kept for the next prompts of the model; widths are rounded up, so that they mostly fit the one there is.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from raw2s.decoding import step_attention
from raw2s.decoding.beam_rules import NEVER, Beams, advance, grow, prompt_positions, start, step_mask
from raw2s.decoding.grouped_attention import grouped_heads
from raw2s.decoding.heads import output_head
from raw2s.decoding.logits import next_token_logits, padded_head, pays_padding, refill
from raw2s.decoding.tree_cache import StaticTreeCache

WIDTH_STEP = 64
"""Prompts of up to so many tokens' difference share a graph."""
COLUMNS_STEP = 16
"""Attention kernels read a mask whose rows are a multiple of that, others they copy first."""
STEPS_UNASKED = 4
"""Steps between two looks whether all prompts are done: a look waits for the device."""


@dataclass(frozen=True)
class Step:
    """`run(model)` takes the state in `beams` and `cache` one token further, in place."""

    beams: Beams
    cache: StaticTreeCache
    head: nn.Linear | None
    """The model's output head with rows up to a width that products are fast for; None where its own is."""
    run: Callable[[PreTrainedModel], None]
    key: tuple[object, ...]
    """What holds for good: shapes, the end marker, and where the weights lie."""


_KEPT: WeakKeyDictionary[PreTrainedModel, Step] = WeakKeyDictionary()
"""A model's last step and its cache: units come with like lengths together."""
_FINAL = ("final_ids_BMT", "final_tokens_BM", "final_score_BM")
"""What is read when the search is over; the next search writes over the rest."""


def can_capture(model: PreTrainedModel) -> bool:
    """Whether the model is on a GPU and its forward pass asks nothing of its data (dynamic rotary frequencies do)."""
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    return model.device.type == "cuda" and model._can_compile_fullgraph and rope.get("rope_type") not in ("dynamic", "longrope")


def static_search(
    model: PreTrainedModel, prompt_BP: Tensor, mask_BP: Tensor, *, beams: int, max_new_tokens: int, end_id: int | None
) -> Beams:
    """`search.beam_search` with steps of one shape; the result is in the final fields. On a CPU the same, without a graph."""
    prompts, width = prompt_BP.shape
    first_column, columns = cache_columns(width, beams, max_new_tokens)
    key = (prompts, first_column, beams, max_new_tokens, end_id, *(weight.data_ptr() for weight in model.parameters()))
    if model in _KEPT and _KEPT[model].key != key:
        del _KEPT[model]  # its cache, before the next is allocated
    kept = _KEPT.get(model)
    cache = kept.cache if kept else StaticTreeCache(model.config.get_text_config().num_hidden_layers, columns)

    cache.place.column_M = None
    logits_B1V = next_token_logits(model, prompt_BP, mask_BP, prompt_positions(mask_BP), cache, last_only=True)
    state = start(mask_BP, beams=beams, max_new_tokens=max_new_tokens, columns=columns, dtype=model.dtype)
    advance(state, logits_B1V.expand(-1, beams, -1), end_id)
    if max_new_tokens == 1:
        return state
    if kept is None:
        own = Beams(**{name: value.clone() for name, value in vars(state).items()})
        head = padded_head(output_head(model)) if pays_padding(output_head(model)) else None
        run = partial(_take_step, beams=own, cache=cache, head=head, first_column=first_column, end_id=end_id)
        kept = _KEPT[model] = Step(
            own, cache, head, _captured(run, model, own, state) if model.device.type == "cuda" else run, key
        )
    if kept.head:
        refill(kept.head, output_head(model))
    kept.beams.copy_(state)
    for number in range(2, max_new_tokens + 1):
        if number % STEPS_UNASKED == 0 and kept.beams.done_B.all():
            break
        kept.run(model)
    return replace(kept.beams, **{name: getattr(kept.beams, name).clone() for name in _FINAL})


def cache_columns(width: int, beams: int, max_new_tokens: int) -> tuple[int, int]:
    """The column of the first new token, and how many columns there are."""
    first_column = -(-width // WIDTH_STEP) * WIDTH_STEP
    return first_column, -(-(first_column + beams * (max_new_tokens - 1)) // COLUMNS_STEP) * COLUMNS_STEP


def _take_step(
    model: PreTrainedModel, beams: Beams, cache: StaticTreeCache, head: nn.Linear | None, first_column: int, end_id: int | None
) -> None:
    """One step of the search in place: no shape, address or branch depends on the data."""
    config = model.config.get_text_config()
    width = beams.token_BM.shape[1]
    now = replace(beams)
    column_M = first_column + (now.step - 1) * width + torch.arange(width, device=now.step.device)
    cache.place.column_M = column_M
    grow(now, column_M)
    mask = step_mask(config, now, now.bias_BMS.shape[2])
    position_BM = now.position_B[:, None].expand(-1, width)
    with grouped_heads(model, step_attention.NAME):
        logits_BMV = next_token_logits(model, now.token_BM, mask, position_BM, cache, head=head)
    if head:
        logits_BMV[..., len(output_head(model).get_parameter("weight")) :] = NEVER
    advance(now, logits_BMV, end_id)
    beams.copy_(now)


def _captured(
    run: Callable[[PreTrainedModel], None], model: PreTrainedModel, beams: Beams, state: Beams
) -> Callable[[PreTrainedModel], None]:
    """`run` as a CUDA graph; its rehearsals, in which libraries choose their kernels, each begin in `state`."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            beams.copy_(state)
            run(model)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run(model)
    return lambda model: graph.replay()
