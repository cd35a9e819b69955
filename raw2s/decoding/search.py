"""Beam search over Hugging Face causal language models, every prompt one row of the batch and its beams a tree in that row.

A prompt is forwarded once. Each step forwards the newest token of every beam, (B, M) tokens with a mask of each beam's ancestors,
so no cache row is ever copied from beam to beam; prompts that are done leave the batch at once. The rules of the search (2M
continuations a step, which of them end, when a prompt is done) are those of `generate(num_beams=M, length_penalty=1.0,
early_stopping=False)`, and of greedy decoding for one beam.

Shapes: B prompts still searched, M beams, C = 2M continuations, S cache columns, T new tokens, V vocabulary.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from raw2s.decoding.tree_cache import TreeCache

STEPS_OF_ROOM = 16
"""Cache columns are allocated for so many steps; then those that no beam sees any more are dropped."""
NEVER = float("-inf")


@dataclass
class Beams:
    """The state of the search: what every prompt's row holds. All fields have B rows."""

    prompt_B: Tensor
    """Which prompt the row is, as an index into the result."""
    score_BM: Tensor
    """Sum of the log-probabilities of a running beam, best first; -inf where there is none."""
    ids_BMT: Tensor
    final_score_BM: Tensor
    """Mean log-probability of the best hypotheses that have ended, best first; -inf where there is none yet."""
    final_ids_BMT: Tensor
    final_tokens_BM: Tensor
    position_B: Tensor
    """Position of the newest token."""
    bias_BMS: Tensor
    """0 where a beam sees a cache column, else -inf."""
    column_position_BS: Tensor

    def select(self, row: Tensor) -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[row])


@dataclass(frozen=True)
class Hypotheses:
    """Per prompt M hypotheses, best mean log-probability first; those of -inf are none."""

    ids_BMT: Tensor
    tokens_BM: Tensor
    mean_logprob_BM: Tensor


def beam_search(
    model: PreTrainedModel, prompt_BP: Tensor, mask_BP: Tensor, *, beams: int, max_new_tokens: int, end_id: int | None
) -> Hypotheses:
    """The top-`beams` continuations of left-padded prompts; a hypothesis ends with `end_id` or has `max_new_tokens` tokens."""
    config = model.config.get_text_config()
    steps_of_room = min(STEPS_OF_ROOM, max_new_tokens)
    cache = TreeCache(config.num_hidden_layers, room=steps_of_room * beams)
    position_BP = (mask_BP.cumsum(dim=1) - 1).clamp(min=0)
    logits_BV = model(
        input_ids=prompt_BP,
        attention_mask=mask_BP,
        position_ids=position_BP,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    state = _start(prompt_BP, mask_BP, position_BP, beams, max_new_tokens, steps_of_room * beams, model.dtype)
    logits_BMV = logits_BV[:, None].expand(-1, beams, -1)
    found = Hypotheses(state.final_ids_BMT.clone(), state.final_tokens_BM.clone(), state.final_score_BM.clone())
    columns = prompt_BP.shape[1]

    for step in range(1, max_new_tokens + 1):
        parent_BM, token_BM = _advance(state, logits_BMV, step, max_new_tokens, end_id)
        if step == max_new_tokens:
            break
        done_B = _done(state, step)
        if done_B.any():
            _record(found, state, done_B)
            row_B = _leave(state, cache, done_B)
            if not len(row_B):
                return found
            parent_BM, token_BM = parent_BM[row_B], token_BM[row_B]
        if columns + beams > state.bias_BMS.shape[2]:
            columns = _make_room(state, cache, columns, beams * min(STEPS_OF_ROOM, max_new_tokens - step))
        _grow(state, parent_BM, columns)
        columns += beams
        logits_BMV = model(
            input_ids=token_BM,
            attention_mask=_masks(config, state, columns),
            position_ids=state.position_B[:, None].expand(-1, beams),
            past_key_values=cache,
            use_cache=True,
        ).logits
    _record(found, state, torch.ones_like(state.prompt_B, dtype=torch.bool))
    return found


def _start(
    prompt_BP: Tensor, mask_BP: Tensor, position_BP: Tensor, beams: int, max_new_tokens: int, room: int, dtype: torch.dtype
) -> Beams:
    prompts, width = prompt_BP.shape
    score_BM = torch.full((prompts, beams), NEVER, device=prompt_BP.device)
    bias_BMS = torch.full((prompts, beams, width + room), NEVER, dtype=dtype, device=prompt_BP.device)
    bias_BMS[:, :, :width].masked_fill_(mask_BP.bool()[:, None], 0.0)
    ids_BMT = torch.zeros(prompts, beams, max_new_tokens, dtype=torch.long, device=prompt_BP.device)
    return Beams(
        prompt_B=torch.arange(prompts, device=prompt_BP.device),
        score_BM=score_BM.index_fill(1, torch.tensor([0], device=prompt_BP.device), 0.0),  # one beam: equal ones would tie
        ids_BMT=ids_BMT,
        final_score_BM=score_BM,
        final_ids_BMT=ids_BMT,
        final_tokens_BM=torch.zeros_like(ids_BMT[:, :, 0]),
        position_B=position_BP[:, -1],
        bias_BMS=bias_BMS,
        column_position_BS=torch.nn.functional.pad(position_BP, (0, room)),
    )


def _advance(state: Beams, logits_BMV: Tensor, step: int, max_new_tokens: int, end_id: int | None) -> tuple[Tensor, Tensor]:
    """Take every beam's best continuations: some end, M run on. Returns the parents and newest tokens of those, (B, M)."""
    beams, vocabulary = logits_BMV.shape[1:]
    logprob_BMV = logits_BMV.log_softmax(dim=2, dtype=torch.float32) + state.score_BM[:, :, None]
    score_BC, index_BC = logprob_BMV.flatten(1).topk(2 * beams)  # at most M of them end, so M run on
    parent_BC, token_BC = index_BC // vocabulary, index_BC % vocabulary
    ids_BCT = state.ids_BMT.take_along_dim(parent_BC[:, :, None], dim=1)
    ids_BCT[:, :, step - 1] = token_BC
    is_end_BC = torch.zeros_like(token_BC, dtype=torch.bool) if end_id is None else token_BC == end_id

    # Only a continuation among the M best may end.
    ending_BM = score_BC[:, :beams] / step
    if step < max_new_tokens:
        ending_BM = ending_BM.masked_fill(~is_end_BC[:, :beams], NEVER)
    state.final_score_BM, best_BM = torch.cat([state.final_score_BM, ending_BM], dim=1).topk(beams)
    final_ids = torch.cat([state.final_ids_BMT, ids_BCT[:, :beams]], dim=1)
    final_tokens = torch.cat([state.final_tokens_BM, torch.full_like(state.final_tokens_BM, step)], dim=1)
    state.final_ids_BMT = final_ids.take_along_dim(best_BM[:, :, None], dim=1)
    state.final_tokens_BM = final_tokens.gather(1, best_BM)

    state.score_BM, runs_BM = score_BC.masked_fill(is_end_BC, NEVER).topk(beams)
    state.ids_BMT = ids_BCT.take_along_dim(runs_BM[:, :, None], dim=1)
    return parent_BC.gather(1, runs_BM), token_BC.gather(1, runs_BM)


def _done(state: Beams, step: int) -> Tensor:
    """Whether M hypotheses have ended and the best running beam's mean is no better than the worst of theirs.

    Greedy decoding is done with its first end marker.
    """
    worst_B = state.final_score_BM[:, -1]
    full_B = worst_B > NEVER
    return full_B if state.score_BM.shape[1] == 1 else full_B & (state.score_BM[:, 0] / step <= worst_B)


def _record(found: Hypotheses, state: Beams, done_B: Tensor) -> None:
    prompt_D = state.prompt_B[done_B]
    found.ids_BMT[prompt_D] = state.final_ids_BMT[done_B]
    found.tokens_BM[prompt_D] = state.final_tokens_BM[done_B]
    found.mean_logprob_BM[prompt_D] = state.final_score_BM[done_B]


def _leave(state: Beams, cache: TreeCache, done_B: Tensor) -> Tensor:
    """Let the last rows that run on take the places of those done: few rows move. Returns where the kept rows were."""
    kept = len(done_B) - int(done_B.sum())
    hole_N = done_B[:kept].nonzero()[:, 0]
    moved_N = (~done_B[kept:]).nonzero()[:, 0] + kept
    row_B = torch.arange(kept, device=done_B.device).index_copy(0, hole_N, moved_N)
    state.select(row_B)
    cache.move_prompts(hole_N, moved_N, kept)
    return row_B


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


def _grow(state: Beams, parent_BM: Tensor, columns: int) -> None:
    """Give every beam its parent's view, and the column of its newest token."""
    beams = parent_BM.shape[1]
    state.position_B = state.position_B + 1
    state.column_position_BS[:, columns : columns + beams] = state.position_B[:, None]
    state.bias_BMS = state.bias_BMS.take_along_dim(parent_BM[:, :, None], dim=1)
    state.bias_BMS[:, :, columns : columns + beams].diagonal(dim1=1, dim2=2).fill_(0.0)


def _masks(config: PreTrainedConfig, state: Beams, columns: int) -> Tensor | dict[str, Tensor]:
    """The additive attention mask of the step, (B, 1, M, S); one per kind of layer where a model has both kinds."""
    full = state.bias_BMS[:, None, :, :columns]
    window = getattr(config, "sliding_window", None)
    if window is None:
        return full
    beyond_BS = state.column_position_BS[:, :columns] <= state.position_B[:, None] - window
    sliding = full.masked_fill(beyond_BS[:, None, None], NEVER)
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention"])
    return {"full_attention": full, "sliding_attention": sliding} if len(kinds) > 1 else sliding
