from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from raw2s.losses import cross_entropy, edl_loss, mix_targets


def per_item_edl(logits: Tensor, target: Tensor) -> Tensor:
    return edl_loss(logits, target, kl_weight=0.2, form="expected", reduction="none")


def per_item_ce(logits: Tensor, target: Tensor) -> Tensor:
    return cross_entropy(logits, target, reduction="none")


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 4), st.integers(2, 6), st.booleans(), st.integers(0, 10_000), st.sampled_from([per_item_ce, per_item_edl]))
def test_one_call_on_the_mean_is_the_weighted_sum_of_losses(
    teachers: int, classes: int, per_item: bool, seed: int, loss: Callable[[Tensor, Tensor], Tensor]
) -> None:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randn(teachers, 3, classes, generator=generator, dtype=torch.float64).softmax(-1)
    weights = torch.rand((teachers, 3) if per_item else (teachers,), generator=generator, dtype=torch.float64) + 0.01
    share = (weights / weights.sum(0)).reshape(teachers, -1).expand(teachers, 3)
    logits = (2 * torch.randn(3, classes, generator=generator, dtype=torch.float64)).requires_grad_()
    collapsed = loss(logits, mix_targets(targets, weights))
    separate = sum(share[i] * loss(logits, targets[i]) for i in range(teachers))
    assert isinstance(separate, Tensor)
    torch.testing.assert_close(collapsed, separate)
    grads = [torch.autograd.grad(value.sum(), logits)[0] for value in (collapsed, separate)]
    torch.testing.assert_close(*grads)


def test_absent_teachers_do_not_count() -> None:
    targets = torch.tensor([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.25, 0.75]]])
    mixed = mix_targets(targets, torch.tensor([[2.0, 0.0], [2.0, 5.0]]))
    torch.testing.assert_close(mixed, torch.tensor([[0.5, 0.5], [0.25, 0.75]]))


@pytest.mark.parametrize("weights", [[0.5, -0.5], [0.0, 0.0], [1.0, 1.0, 1.0]])
def test_impossible_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights"):
        mix_targets(torch.full((2, 4, 2), 0.5), torch.tensor(weights))
