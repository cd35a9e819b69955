"""`FusedHead` where DeepSpeed's ZeRO-3 partitions its weight: what ZeRO-0 and plain autograd compute, at two workers."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from ranks import run_ranks
from torch import Tensor
from zero_worker import LEARNING_RATE, MICRO_BATCHES, ROWS, WORKERS, TiedModel, batches, train_stages

from raw2s.losses import cross_entropy, edl_loss, mix_with_own_prediction, soft_label

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def plain(model: TiedModel, read: Tensor, token: Tensor, prob: Tensor) -> Tensor:
    """The worker's forward on whole logits."""
    hidden = model.body(model.embedding(read)).tanh()
    logits = F.linear(hidden, model.embedding.weight, model.head.bias)
    own_prob = logits.softmax(-1).amax(-1).detach()
    target = mix_with_own_prediction(soft_label(logits, token, prob * own_prob), logits, 0.2)
    edl = edl_loss(logits, target, kl_weight=1e-2, reduction="sum")
    ce = cross_entropy(logits, soft_label(logits, token, prob), reduction="sum")
    return (edl + ce + cross_entropy(logits, token, reduction="sum")) / ROWS


def test_a_partitioned_head_learns_what_a_whole_one_does(tmp_path: Path) -> None:
    run_ranks(train_stages, WORKERS, tmp_path)
    by_stage = torch.load(tmp_path / "results.pt")

    model = TiedModel()
    losses, grads = [], []
    for i, of_workers in enumerate(batches()):
        each = torch.stack([plain(model, *batch) for batch in of_workers])
        (each.mean() / MICRO_BATCHES).backward()
        losses.append(each.detach())
        if (i + 1) % MICRO_BATCHES == 0:
            grads.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
            with torch.no_grad():
                for p in model.parameters():
                    p -= LEARNING_RATE * p.grad
            model.zero_grad()
    weights = {name: p.detach() for name, p in model.named_parameters()}
    assert len(weights) == 4, "the tied weight counts once: embedding, body (2), bias"
    for found in by_stage.values():
        torch.testing.assert_close(found["losses"], torch.stack(losses), rtol=1e-6, atol=1e-6)
        for have, want in [*zip(found["grads"], grads, strict=True), (found["weights"], weights)]:
            assert have.keys() == want.keys()
            for name in want:
                assert (have[name] - want[name]).abs().max() <= 1e-6 * max(1.0, want[name].abs().max()), name
