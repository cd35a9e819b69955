"""The peak of labeling: beams with their cache, and scores of given texts; no gradients."""

from dataclasses import dataclass

from raw2s.decoding.search import STEPS_OF_ROOM
from raw2s.decoding.static_search import cache_columns
from raw2s.losses.linear_rows import chunk_rows, gpu_chunk_bytes
from raw2s.sizing.activations import LayerMemory
from raw2s.sizing.model import ModelSize
from raw2s.sizing.training import MicroBatch


@dataclass(frozen=True, kw_only=True)
class BeamBatch:
    """A unit of beam search."""

    prompts: int
    width: int
    """Tokens of the longest prompt."""
    beams: int
    max_new_tokens: int
    shares_prompt: bool = True
    """Whether a prompt's beams are a tree in one row of the cache; else each has a row of its own (BLOOM, MPT, Falcon)."""


@dataclass(frozen=True, kw_only=True)
class DecodingPeak:
    """The peak in bytes, in parts that sum to `total`."""

    weights: float
    cache: float
    activations: float
    head: float

    @property
    def total(self) -> float:
        return self.weights + self.cache + self.activations + self.head


def beams_peak(size: ModelSize, layer: LayerMemory, batch: BeamBatch, *, weight_bytes: int, on_gpu: bool) -> DecodingPeak:
    """Of a beam search: the cache beside the prompts in a layer, or beside a step's logits and their log-softmax in fp32.

    A prompt stands in the cache once and every beam's new token takes a column (`raw2s.decoding.tree_cache`): for all steps on a
    GPU, on a CPU for the next `STEPS_OF_ROOM` beside those of the texts.
    """
    if on_gpu:
        _, columns = cache_columns(batch.width, batch.beams, batch.max_new_tokens)
    else:
        columns = batch.width + batch.max_new_tokens + batch.beams * min(STEPS_OF_ROOM, batch.max_new_tokens)
    rows = batch.prompts
    if not batch.shares_prompt:
        rows, columns = batch.prompts * batch.beams, batch.width + batch.max_new_tokens
    cache = weight_bytes * size.key_value * size.layers * rows * columns
    prompts = layer.working * batch.prompts * batch.width
    logits = 2 * 4 * size.head_rows * batch.prompts * batch.beams
    return DecodingPeak(
        weights=weight_bytes * size.parameters,
        cache=cache,
        activations=prompts if prompts >= logits else 0,
        head=logits if logits > prompts else 0,
    )


def scoring_peak(
    size: ModelSize, layer: LayerMemory, batch: MicroBatch, *, weight_bytes: int, card_bytes: float | None
) -> DecodingPeak:
    """Of scores of given texts: one layer's memory, or the hidden states at the targets with a chunk of their fp32 logits.

    A CPU scores a block of the vocabulary at a time and has no chunk (`raw2s.decoding.scoring`); without `card_bytes` it is one.
    """
    dense = weight_bytes * batch.rows * batch.width**2 if card_bytes is None else 0
    layers = layer.working * batch.cells + dense
    head = weight_bytes * size.hidden * (batch.cells + batch.targets)
    if card_bytes is not None:
        row_bytes = 4 * size.head_rows
        head += row_bytes * chunk_rows(batch.targets, row_bytes, gpu_chunk_bytes(int(card_bytes)))
    return DecodingPeak(
        weights=weight_bytes * size.parameters,
        cache=0,
        activations=layers if layers >= head else 0,
        head=head if head > layers else 0,
    )
