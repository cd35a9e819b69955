"""Dropout when a model is asked, so that several passes are several samples of it (Gal and Ghahramani, 2016)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from raw2s.models.layers import decoder_layers
from raw2s.models.load import own_dropout

RATE = 0.1
"""Of the dropout that is put into a model without its own."""
SEED = 0
_OF_OTHER_HEADS = {"classifier_dropout", "summary_first_dropout"}
"""In the configs of GPT-NeoX and GPT-2, for heads that no model here has."""


@contextmanager
def dropping_out(model: PreTrainedModel) -> Iterator[None]:
    """The model's own dropout as in training; where it has none, `RATE` of what every decoder layer gives to the next.

    The noise begins at one seed each time, and the rest of torch's random numbers are as if there had been none. In eval mode
    again afterwards.
    """
    own = {rate for name, rate in own_dropout(model.config).items() if name not in _OF_OTHER_HEADS}
    hooks = [] if any(own) else [layer.register_forward_hook(_drop) for layer in decoder_layers(model)]
    with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(SEED)
        model.train(not hooks)
        try:
            yield
        finally:
            model.eval()
            for hook in hooks:
                hook.remove()


def _drop(_layer: nn.Module, _inputs: Any, output: Any) -> Any:
    """Hidden states, which of some architectures are the first of several outputs."""
    if isinstance(output, tuple):
        return (nn.functional.dropout(output[0], RATE), *output[1:])
    return nn.functional.dropout(output, RATE)
