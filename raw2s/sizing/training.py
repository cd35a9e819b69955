"""The peak of a training step: the largest of the moments at which memory can be at its highest."""

from dataclasses import dataclass, replace

from raw2s.losses.linear_rows import CPU_CHUNK_BYTES, chunk_rows, gpu_chunk_bytes
from raw2s.sizing.activations import LayerMemory
from raw2s.sizing.model import ModelSize
from raw2s.sizing.states import Layout, States, states

TORCH_PASSES = 5
"""Chunks of logits that the EDL head's passes in torch hold beside the logits on a GPU (fp32; one-hot targets): `edl_rows`."""


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """One forward and backward pass of a worker."""

    rows: int
    width: int
    """Tokens of a row, padding included."""
    targets: int
    """Positions at which the output head runs."""

    @property
    def cells(self) -> int:
        return self.rows * self.width


@dataclass(frozen=True, kw_only=True)
class Step:
    """How a worker makes a step."""

    layout: Layout
    layer: LayerMemory
    micro_batch: MicroBatch
    """Its largest."""
    micro_batches: int = 1
    checkpointed: float = 0.0
    """Share of the layers that are computed again."""
    dense_mask: bool = True
    kept_scores: int = 0
    """Numbers that attention keeps of a query, a key and a head: none by a fused kernel."""
    card_bytes: float | None = None
    """The GPU's memory, by which the head's chunks are sized; None on a CPU."""


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The peak in bytes, in parts that sum to `total`; `host` beside it, where the optimizer's state is offloaded."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    head: float
    """Logits of a chunk and what its products need."""
    buffers: float
    """DeepSpeed's buckets and flat copies."""
    host: float = 0.0

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.activations + self.head + self.buffers


def step_peak(size: ModelSize, step: Step) -> Peak:
    """The largest of four moments of a worker's step.

    The head's turn: all activations stand, and of the gradients the embedding's, or with several micro-batches all. The backward
    pass of the last layer, and of the first: between them gradients come as activations go, both linear in the layers, so no moment
    is higher than both ends. The optimizer's step: no activations. On a CPU the parts' peaks add up: glibc keeps the memory of gradients
    and activations (blocks of less than 32 MiB), and the buffers, which are larger, come from the system beside it.
    """
    kept, cells = states(size, step.layout), step.micro_batch.cells
    embedding = _embedding_gradient(size, step, size.head_rows)
    held = kept.gradients if step.micro_batches > 1 else min(embedding, kept.gradients)
    buckets = kept.buckets if step.micro_batches > 1 else 0.0
    saved = _activations(size, step)
    again = cells * step.layer.saved
    last = saved + cells * step.layer.working + (again if step.checkpointed == 1 else 0)
    first = again + cells * step.layer.working + _embedding_gradient(size, step, size.looked_up_rows)
    passes = [
        _peak(kept, gradients=held, activations=saved, head=_head(size, step), buffers=buckets),
        _peak(kept, gradients=held, activations=last, buffers=buckets),
        _peak(kept, gradients=kept.gradients, activations=first, buffers=kept.buckets),
    ]
    if not step.layout.on_gpu:
        highest = max(passes, key=lambda peak: peak.total - peak.buffers)
        return replace(highest, buffers=max(kept.buckets, kept.at_step))
    return max(*passes, _peak(kept, gradients=kept.gradients, buffers=kept.at_step), key=lambda peak: peak.total)


def _peak(kept: States, *, gradients: float, activations: float = 0.0, head: float = 0.0, buffers: float = 0.0) -> Peak:
    return Peak(
        weights=kept.weights,
        gradients=gradients,
        optimizer=kept.optimizer,
        activations=activations,
        head=head,
        buffers=buffers,
        host=kept.host,
    )


def _embedding_gradient(size: ModelSize, step: Step, rows: int) -> float:
    """Of the output or the input embedding, whole; none where only adapters are trained."""
    return step.layout.weight_bytes * size.hidden * rows if size.trained == size.parameters else 0


def _activations(size: ModelSize, step: Step) -> float:
    """Between the passes: what the layers keep, the embedding's output, the last norm's input and output, and the mask.

    Of a layer that is computed again only its input (Chen et al. 2016).
    """
    batch, hidden = step.micro_batch, step.layer.hidden
    again = round(step.checkpointed * size.layers)
    a_token = again * hidden + (size.layers - again) * step.layer.saved + 3 * hidden
    pairs = step.layout.weight_bytes * batch.rows * batch.width**2
    scores = (size.layers - again) * size.heads * step.kept_scores * pairs
    return batch.cells * a_token + scores + (pairs if step.dense_mask else 0)


def _head(size: ModelSize, step: Step) -> float:
    """Of `raw2s.losses.linear_rows`: hidden states at the targets and their gradient, a chunk of fp32 logits, and where chunks are
    several the embedding's gradient in fp32."""
    element, targets = step.layout.weight_bytes, step.micro_batch.targets
    row_bytes = 4 * size.head_rows
    budget = CPU_CHUNK_BYTES if step.card_bytes is None else gpu_chunk_bytes(int(step.card_bytes))
    chunk = chunk_rows(targets, row_bytes, budget)
    in_torch = step.card_bytes is not None and element == 4
    logits = row_bytes * chunk * (1 + TORCH_PASSES if in_torch else 1)
    embedding = 0.0
    if element == 2 and (chunk < targets or step.card_bytes is None):
        embedding = 2 * _embedding_gradient(size, step, size.head_rows)
    again = _embedding_gradient(size, step, size.head_rows) if step.micro_batches > 1 else 0
    return 2 * element * targets * size.hidden + logits + embedding + again
