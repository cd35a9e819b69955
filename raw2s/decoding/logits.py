"""Logits as decoding and classification want them: from the decoder's hidden states, never rounded to half precision."""

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from raw2s.decoding.heads import output_head

HEAD_STEP = 64
"""Outputs of a padded head are a multiple of that."""


def next_token_logits(
    model: PreTrainedModel,
    ids_BT: Tensor,
    mask: Tensor | dict[str, Tensor],
    position_BT: Tensor,
    cache: Cache,
    *,
    last_only: bool = False,
    head: nn.Module | None = None,
) -> Tensor:
    """The logits after each of the tokens, (B, T, V), or after the last, (B, 1, V); in fp32 at least, as `head_logits`.

    `cache` holds the tokens before and takes these; `mask` is the decoder's `attention_mask`; `head` stands for the model's own.
    """
    hidden_BTH = model.get_decoder()(
        input_ids=ids_BT, attention_mask=mask, position_ids=position_BT, past_key_values=cache, use_cache=True
    ).last_hidden_state
    if last_only:
        hidden_BTH = hidden_BTH[:, -1:]
    return head_logits(head or output_head(model), hidden_BTH.flatten(0, 1)).unflatten(0, hidden_BTH.shape[:2])


def head_logits(head: nn.Module, hidden_NH: Tensor) -> Tensor:
    """The head's product, (N, V), in fp32, or in fp64 for a model in fp64.

    A product in bf16 is summed in fp32 anyway: rounded to bf16 before the softmax, a logit of 20 would be wrong by 0.06.
    """
    weight_VH, bias_V = head.get_parameter("weight"), getattr(head, "bias", None)
    dtype = torch.promote_types(weight_VH.dtype, torch.float32)
    if weight_VH.is_cuda and weight_VH.dtype != dtype:
        logits_NV = torch.mm(hidden_NH, weight_VH.T, out_dtype=dtype)
    else:  # a CPU has no such product; a cast to the same type copies nothing
        logits_NV = torch.mm(hidden_NH.to(dtype), weight_VH.to(dtype).T)
    return logits_NV if bias_V is None else logits_NV.add_(bias_V)


def pays_padding(head: nn.Module) -> bool:
    """Whether cuBLAS takes a slow kernel for the head's product: in half precision, rows of 16 bytes or not at all."""
    weight_VH = head.get_parameter("weight")
    return weight_VH.is_cuda and weight_VH.element_size() == 2 and len(weight_VH) % 8 > 0


def padded_head(head: nn.Module) -> nn.Linear:
    """Room for a copy of `head`, (V', H), V' the next multiple of 64 after V; the logits past V are 0."""
    weight_VH, bias_V = head.get_parameter("weight"), getattr(head, "bias", None)
    padded = nn.utils.skip_init(
        nn.Linear, weight_VH.shape[1], -(-len(weight_VH) // HEAD_STEP) * HEAD_STEP, bias=bias_V is not None, dtype=weight_VH.dtype,
        device=weight_VH.device,
    ).requires_grad_(False)  # fmt: skip
    for parameter in padded.parameters():
        parameter.zero_()
    return padded


def refill(padded: nn.Linear, head: nn.Module) -> None:
    """Copy the head's weights, which training may have changed, into their room."""
    for name, parameter in padded.named_parameters():
        own = head.get_parameter(name)
        parameter[: len(own)].copy_(own)
