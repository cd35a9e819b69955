"""The rules of a beam search on tensors alone: no model, and nothing that a device must be asked about.

2M continuations a step, which of them end, and when a prompt is done, are those of
`generate(num_beams=M, length_penalty=1.0, early_stopping=False)`, and of greedy decoding for one beam.

Shapes: B prompts searched, M beams, C = 2M continuations, S cache columns, T new tokens, V vocabulary.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from transformers import PreTrainedConfig

NEVER = float("-inf")


@dataclass
class Beams:
    """The state of the search: what every prompt's row holds. All fields but `step` have B rows."""

    step: Tensor
    """() how many new tokens a running beam has."""
    prompt_B: Tensor
    """Which prompt the row is, as an index into the result."""
    done_B: Tensor
    """Whether the prompt is done: its final hypotheses stay as they are."""
    score_BM: Tensor
    """Sum of the log-probabilities of a running beam, best first; -inf where there is none."""
    ids_BMT: Tensor
    parent_BM: Tensor
    """Which beam of the step before each beam goes on from."""
    token_BM: Tensor
    """The newest tokens, not yet in the cache."""
    final_score_BM: Tensor
    """Mean log-probability of the best hypotheses that have ended, best first; -inf where there is none yet."""
    final_ids_BMT: Tensor
    final_tokens_BM: Tensor
    position_B: Tensor
    """Position of the newest token that the cache holds."""
    bias_BMS: Tensor
    """0 where a beam sees a cache column, else -inf."""
    column_position_BS: Tensor

    def select(self, row: Tensor) -> None:
        for field in fields(self)[1:]:
            setattr(self, field.name, getattr(self, field.name)[row])

    def copy_(self, other: "Beams") -> None:
        """Take over the other's values, in the tensors that are here."""
        for field in fields(self):
            getattr(self, field.name).copy_(getattr(other, field.name))


def start(mask_BP: Tensor, *, beams: int, max_new_tokens: int, columns: int, dtype: torch.dtype) -> Beams:
    """The state after the prompts: cache columns 0 to P are theirs, and no beam sees the others, up to `columns`."""
    prompts, width = mask_BP.shape
    position_BP = prompt_positions(mask_BP)
    score_BM = torch.full((prompts, beams), NEVER, device=mask_BP.device)
    bias_BMS = torch.full((prompts, beams, columns), NEVER, dtype=dtype, device=mask_BP.device)
    bias_BMS[:, :, :width].masked_fill_(mask_BP.bool()[:, None], 0.0)
    ids_BMT = torch.zeros(prompts, beams, max_new_tokens, dtype=torch.long, device=mask_BP.device)
    return Beams(
        step=torch.zeros((), dtype=torch.long, device=mask_BP.device),
        prompt_B=torch.arange(prompts, device=mask_BP.device),
        done_B=torch.zeros(prompts, dtype=torch.bool, device=mask_BP.device),
        score_BM=score_BM.index_fill(1, torch.tensor([0], device=mask_BP.device), 0.0),  # one beam: equal ones would tie
        ids_BMT=ids_BMT,
        parent_BM=ids_BMT[:, :, 0],
        token_BM=ids_BMT[:, :, 0],
        final_score_BM=score_BM,
        final_ids_BMT=ids_BMT,
        final_tokens_BM=ids_BMT[:, :, 0],
        position_B=position_BP[:, -1],
        bias_BMS=bias_BMS,
        column_position_BS=torch.nn.functional.pad(position_BP, (0, columns - width)),
    )


def prompt_positions(mask_BP: Tensor) -> Tensor:
    """Every prompt token's position among those that `mask_BP` holds true, (B, P); 0 for the padding on the left."""
    return (mask_BP.cumsum(dim=1) - 1).clamp(min=0)


def advance(state: Beams, logits_BMV: Tensor, end_id: int | None) -> None:
    """Take every beam's best continuations: some end, M run on; and say which prompts are done with that."""
    beams, vocabulary = logits_BMV.shape[1:]
    state.step = state.step + 1
    last = state.step == state.ids_BMT.shape[2]
    # The 2M best of all are among each beam's own 2M best.
    logprob_BMV = logits_BMV.log_softmax(dim=2, dtype=torch.float32)
    own_logprob_BMC, own_token_BMC = logprob_BMV.topk(min(2 * beams, vocabulary))
    score_BC, index_BC = (own_logprob_BMC + state.score_BM[:, :, None]).flatten(1).topk(2 * beams)
    parent_BC = index_BC // own_token_BMC.shape[2]
    token_BC = own_token_BMC.flatten(1).gather(1, index_BC)  # at most M of them end, so M run on
    ids_BCT = state.ids_BMT.take_along_dim(parent_BC[:, :, None], dim=1)
    ids_BCT.index_copy_(2, state.step[None] - 1, token_BC[:, :, None])
    is_end_BC = torch.zeros_like(token_BC, dtype=torch.bool) if end_id is None else token_BC == end_id

    # Only a continuation among the M best may end.
    ends_BM = (is_end_BC[:, :beams] | last) & ~state.done_B[:, None]
    ending_BM = (score_BC[:, :beams] / state.step).masked_fill(~ends_BM, NEVER)
    state.final_score_BM, best_BM = torch.cat([state.final_score_BM, ending_BM], dim=1).topk(beams)
    final_ids = torch.cat([state.final_ids_BMT, ids_BCT[:, :beams]], dim=1)
    final_tokens = torch.cat([state.final_tokens_BM, state.step.expand_as(state.final_tokens_BM)], dim=1)
    state.final_ids_BMT = final_ids.take_along_dim(best_BM[:, :, None], dim=1)
    state.final_tokens_BM = final_tokens.gather(1, best_BM)

    state.score_BM, runs_BM = score_BC.masked_fill(is_end_BC, NEVER).topk(beams)
    state.ids_BMT = ids_BCT.take_along_dim(runs_BM[:, :, None], dim=1)
    state.parent_BM, state.token_BM = parent_BC.gather(1, runs_BM), token_BC.gather(1, runs_BM)
    state.done_B = state.done_B | _done(state)


def _done(state: Beams) -> Tensor:
    """Whether M hypotheses have ended and the best running beam's mean is no better than the worst of theirs.

    Greedy decoding is done with its first end marker.
    """
    worst_B = state.final_score_BM[:, -1]
    full_B = worst_B > NEVER
    return full_B if state.score_BM.shape[1] == 1 else full_B & (state.score_BM[:, 0] / state.step <= worst_B)


def grow(state: Beams, column_M: Tensor) -> None:
    """Give every beam its parent's view, and the column of its newest token: beam m's is `column_M[m]`."""
    prompts, beams = state.parent_BM.shape
    state.position_B = state.position_B + 1
    state.column_position_BS.index_copy_(1, column_M, state.position_B[:, None].expand(-1, beams))
    state.bias_BMS = state.bias_BMS.take_along_dim(state.parent_BM[:, :, None], dim=1)
    state.bias_BMS.scatter_(2, column_M[None, :, None].expand(prompts, -1, 1), 0.0)


def step_mask(config: PreTrainedConfig, state: Beams, columns: int) -> Tensor | dict[str, Tensor]:
    """The additive attention mask of the step, (B, 1, M, S); one per kind of layer where a model has both kinds."""
    full = state.bias_BMS[:, None, :, :columns]
    window = getattr(config, "sliding_window", None)
    if window is None:
        return full
    beyond_BS = state.column_position_BS[:, :columns] <= state.position_B[:, None] - window
    sliding = full.masked_fill(beyond_BS[:, None, None], NEVER)
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention"])
    return {"full_attention": full, "sliding_attention": sliding} if len(kinds) > 1 else sliding
