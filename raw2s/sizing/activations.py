"""What a decoder layer leaves in memory for its backward pass, and what it holds at once: counted on the meta device.

Autograd is asked itself, layer by layer, so that the count is the architecture's own and no table of formulas: for a Llama in
bf16 without compiling it gives 21 numbers a token and hidden unit, where Korthikanti et al. 2022 (eq. 2: 34 bytes and the scores)
counts 17 for the GPT of its time. Attention keeps queries, keys, values, its output and one fp32 number a head and
token, as every fused kernel does (Dao et al. 2022, section 3.1), and no score.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AttentionInterface, PreTrainedModel

from raw2s.decoding.packing import packable
from raw2s.models.layers import decoder_layers

_NAME = "raw2s_counted"
_TOKENS = 256
"""Of the row that is counted; what a layer keeps is proportional to it."""


@dataclass(frozen=True, kw_only=True)
class LayerMemory:
    """Bytes a token."""

    saved: float
    """Kept from the forward to the backward pass."""
    working: float
    """Held at once in the layer's forward pass without gradients, its input included; its backward holds as much again."""
    hidden: int
    """The layer's input, all that is kept of a layer that is computed again."""


def layer_memory(model: PreTrainedModel, *, compiled: bool = False, repeated_heads: bool = True) -> LayerMemory:
    """Of the first decoder layer of a model on the meta device, in its own type and as it trains (with its dropout).

    `compiled`: after torch's min-cut partitioner, as `torch.compile` keeps them (seconds at the first call). `repeated_heads`: as
    attention with a dense mask has shared keys and values, repeated for every head; FlexAttention over blocks does not.
    """
    if packable(model):
        _attend_by(model, repeated_heads)
    layer: Any = decoder_layers(model)[0]
    forward = layer.forward
    try:
        working = _counted(model, layer, partial(_working, forward), train=False)
        if compiled:
            torch._dynamo.reset()
            forward = partial(torch.compile(type(layer).forward, backend="aot_eager_decomp_partition"), layer)
        saved = _counted(model, layer, partial(_saved, forward), train=True)
    finally:
        vars(layer).pop("forward", None)
    hidden = model.config.get_text_config().hidden_size * model.dtype.itemsize
    return LayerMemory(saved=saved / _TOKENS, working=working / _TOKENS, hidden=hidden)


def _counted(model: PreTrainedModel, layer: Any, count: Callable[..., tuple[Any, int]], *, train: bool) -> int:
    """What `count(found, *args, **options)` finds when the layer's turn comes in one row through the decoder."""
    found: list[int] = []

    def counting(*args: Any, **options: Any) -> Any:
        result, bytes_ = count(*args, **options)
        found.append(bytes_)
        return result

    layer.forward = counting
    ids_1T = torch.zeros(1, _TOKENS, dtype=torch.long, device="meta")
    where: dict[str, Any] = {"attention_mask": torch.ones(1, _TOKENS, device="meta")}
    if packable(model):
        mask = torch.zeros(1, 1, _TOKENS, _TOKENS, dtype=model.dtype, device="meta")
        where = {"attention_mask": mask, "position_ids": ids_1T}
    model.train(train)
    with torch.set_grad_enabled(train):
        model.get_decoder()(input_ids=ids_1T, use_cache=False, **where)
    return found[0]


def _saved(forward: Callable[..., Any], *args: Any, **options: Any) -> tuple[Any, int]:
    """The layer's result, and the bytes that autograd keeps of it beside weights and what all layers share."""
    shared = {x.untyped_storage()._cdata for x in tree_leaves((args[1:], options)) if isinstance(x, Tensor)}
    kept: dict[int, Tensor] = {}

    def pack(x: Tensor) -> Tensor:
        if not isinstance(x, torch.nn.Parameter) and not (x._base is not None and isinstance(x._base, torch.nn.Parameter)):
            kept.setdefault(x.untyped_storage()._cdata, x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        result = forward(*args, **options)
    return result, sum(x.untyped_storage().nbytes() for key, x in kept.items() if key not in shared)


def _working(forward: Callable[..., Any], *args: Any, **options: Any) -> tuple[Any, int]:
    """The layer's result, and the most bytes that stood at once while it was made, its input included."""
    with _Live() as live:
        result = forward(*args, **options)
    return result, live.most + args[0].untyped_storage().nbytes()


class _Live(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, from then until nothing refers to them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {x.untyped_storage() for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            storage = x.untyped_storage() if isinstance(x, Tensor) else None
            if storage is not None and storage not in given and storage not in self.known:
                self.known.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, storage.nbytes())
        self.most = max(self.most, self.now)
        return result

    def _gone(self, bytes_: int) -> None:
        self.now -= bytes_


def _attend_by(model: PreTrainedModel, repeated_heads: bool) -> None:
    """Let the model attend by an operation that keeps what a fused kernel keeps and computes nothing."""
    operation = _attention_operation()

    def attention(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **_: Any) -> tuple[Tensor, None]:
        groups = query.shape[1] // key.shape[1]
        if repeated_heads and groups > 1:
            key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
        return operation(query, key, value)[0].transpose(1, 2).contiguous(), None

    AttentionInterface.register(_NAME, attention)
    model.config.get_text_config()._attn_implementation = _NAME


@cache
def _attention_operation() -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(output, logsumexp) of queries, keys and values: shapes alone, opaque to the compiler as FlexAttention's kernel is."""

    @torch.library.custom_op("raw2s::counted_attention", mutates_args=())
    def attend(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        return torch.empty_like(query), query.new_empty(query.shape[:-1], dtype=torch.float32)

    @torch.library.custom_op("raw2s::counted_attention_backward", mutates_args=())
    def backward(grad: Tensor, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)

    attend.register_fake(
        lambda query, key, value: (torch.empty_like(query), query.new_empty(query.shape[:-1], dtype=torch.float32))
    )
    backward.register_fake(lambda grad, *given: tuple(torch.empty_like(x) for x in given))
    attend.register_autograd(
        lambda ctx, grad, _: backward(grad, *ctx.saved_tensors[:3]),
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs, *output),
    )
    return attend
