"""Any loss over tokens from its formula, against the closed forms and against autograd on the whole batch's logits."""

import sys
from functools import partial
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from raw2s.losses import (
    FusedHead,
    cross_entropy,
    edl_loss,
    linear_cross_entropy,
    linear_edl_loss,
    linear_loss,
    linear_rows,
    mix_with_own_prediction,
    soft_label,
)

N, H, V = 7, 5, 23
CE = partial(cross_entropy, reduction="none")
EDL = partial(edl_loss, kl_weight=0.3, reduction="none")
CLOSED = {"ce": (CE, linear_cross_entropy), "edl": (EDL, partial(linear_edl_loss, kl_weight=0.3))}


def squared_error(logits, target):
    """A formula without a closed form here: the Brier score."""
    return (logits.softmax(-1) - target).square().sum(-1)


def drawn(seed, dtype=torch.float64):
    """Hidden states, weight, bias; target pieces, the teachers' probabilities for them, row weights (0 among them)."""
    generator = torch.Generator().manual_seed(seed)
    head = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in ((N, H), (V, H), (V,))]
    token = torch.randint(V, (N,), generator=generator)
    prob, row_weight = torch.rand(2, N, generator=generator, dtype=torch.float64)
    row_weight[2] = 0.0
    return [x.requires_grad_() for x in head], token, prob, row_weight


@pytest.fixture
def chunks(monkeypatch):
    """Three chunks of unequal size, in blocks of two rows."""
    monkeypatch.setattr(linear_rows, "_MIN_CHUNK_ROWS", 3)
    monkeypatch.setattr(linear_rows, "_CHUNK_BYTES", {"cpu": 1})
    monkeypatch.setattr(linear_rows, "_BLOCK_ELEMENTS_ON_CPU", 2 * V)


def of_the_whole(formula, head, token, prob, row_weight, gamma):
    """Loss, every row's loss, largest probabilities, from all logits at once."""
    logits = F.linear(*head)
    prob = prob(logits.softmax(-1).amax(-1).detach()) if callable(prob) else prob
    label = F.one_hot(token, V).to(logits.dtype) if prob is None else soft_label(logits, token, prob)
    loss_N = formula(logits, mix_with_own_prediction(label, logits, gamma))
    return (row_weight * loss_N).sum(), loss_N, logits.softmax(-1).amax(-1)


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("soft, gamma", [(False, 0.0), (True, 0.3)])
def test_the_closed_forms_are_their_formulas(name, soft, gamma, chunks):
    formula, closed = CLOSED[name]
    head, token, prob, row_weight = drawn(1)
    options = {"bias_V": head[2], "row_weight_N": row_weight, "gamma": gamma}
    given_prob = prob if soft else None
    got = linear_loss(formula, *head[:2], token, given_prob, **options)
    expected = closed(*head[:2], token, given_prob, **options)
    torch.testing.assert_close(got.loss, expected.loss)
    torch.testing.assert_close(got.max_prob_N, expected.max_prob_N)
    grads = [torch.autograd.grad(one.loss, head) for one in (got, expected)]
    torch.testing.assert_close(*grads)


@given(st.integers(0, 10_000), st.sampled_from([None, "number", "function"]), st.sampled_from([0.0, 0.4]))
def test_in_chunks_it_is_what_autograd_gives_on_all_logits(seed, soft, gamma):
    head, token, prob, row_weight = drawn(seed)
    given_prob = {None: None, "number": prob, "function": lambda max_prob: prob * max_prob}[soft]
    expected = of_the_whole(squared_error, head, token, given_prob, row_weight, gamma)
    exact = torch.autograd.grad(expected[0], head)
    for size in (2, 100):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(linear_rows, "_MIN_CHUNK_ROWS", size)
            patch.setattr(linear_rows, "_CHUNK_BYTES", {"cpu": 1})
            got = linear_loss(squared_error, *head[:2], token, given_prob, bias_V=head[2], row_weight_N=row_weight, gamma=gamma)
        torch.testing.assert_close((got.loss, got.nll_N, got.max_prob_N), expected)
        assert got.kl_N is None and not got.nll_N.requires_grad
        torch.testing.assert_close(torch.autograd.grad(got.loss, head), exact)


def test_gradcheck(chunks):
    """Of a formula that reads its target, hard as it is: no constant moves with the logits."""
    head, token, _, row_weight = drawn(2)
    assert torch.autograd.gradcheck(
        lambda h, w, b: linear_loss(squared_error, h, w, token, bias_V=b, row_weight_N=row_weight).loss, head
    )


def test_only_what_needs_a_gradient_gets_one():
    for needed in product((False, True), repeat=3):
        head, token, _, _ = drawn(3)
        for x, need in zip(head, needed, strict=True):
            x.requires_grad_(need)
        loss = linear_loss(squared_error, *head[:2], token, bias_V=head[2]).loss
        assert loss.requires_grad == any(needed)
        if any(needed):
            loss.backward()
        assert [x.grad is not None for x in head] == list(needed)
    with torch.no_grad():
        assert not linear_loss(squared_error, *head[:2], token).loss.requires_grad


def test_logits_never_stand_for_more_than_a_chunk(chunks):
    seen = []

    def formula(logits, target):
        seen.append(len(logits))
        return squared_error(logits, target)

    head, token, _, _ = drawn(4)
    linear_loss(formula, *head[:2], token).loss.backward()
    assert sum(seen) == N and max(seen) == 2


def test_a_formula_sees_a_part_of_a_large_chunk(monkeypatch):
    """A GPU's chunks, and the several tensors of that size that autograd would hold."""
    head, token, prob, row_weight = drawn(10)
    options = {"bias_V": head[2], "row_weight_N": row_weight}
    whole = linear_loss(squared_error, *head[:2], token, prob, **options)
    monkeypatch.setattr(sys.modules[linear_loss.__module__], "_BYTES_AT_ONCE", 3 * 8 * V)
    seen = []
    parts = linear_loss(lambda z, y: seen.append(len(z)) or squared_error(z, y), *head[:2], token, prob, **options)
    assert seen == [3, 3, 1]
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts.loss, head), torch.autograd.grad(whole.loss, head))


def test_a_kept_graph_may_run_backward_again():
    head, token, _, _ = drawn(5)
    loss = linear_loss(squared_error, *head[:2], token).loss
    first = [grad.clone() for grad in torch.autograd.grad(2 * loss, head[:2], retain_graph=True)]
    torch.testing.assert_close(torch.autograd.grad(4 * loss, head[:2]), tuple(2 * grad for grad in first))


def test_no_rows():
    head, token, _, _ = drawn(6)
    got = linear_loss(squared_error, head[0][:0], head[1], token[:0])
    got.loss.backward()
    assert got.loss == 0 and not head[1].grad.any()


def test_half_precision_operands_give_fp32_logits():
    head, token, _, _ = drawn(7, torch.bfloat16)
    seen = []
    got = linear_loss(lambda z, y: seen.append((z.dtype, y.dtype)) or squared_error(z, y), *head[:2], token)
    got.loss.backward()
    assert seen == [(torch.float32, torch.float32)] and got.loss.dtype == torch.float32
    assert {x.grad.dtype for x in head[:2]} == {torch.bfloat16}
    exact = squared_error(F.linear(*(x.float() for x in head[:2])), F.one_hot(token, V).float())
    torch.testing.assert_close(got.nll_N, exact.detach())


def test_through_a_head():
    embedding = nn.Linear(H, V, dtype=torch.float64)
    head, token, prob, row_weight = drawn(8)
    found = FusedHead(embedding)(partial(linear_loss, squared_error), head[0], token, prob, row_weight_N=row_weight)
    expected = of_the_whole(squared_error, (head[0], embedding.weight, embedding.bias), token, prob, row_weight, 0.0)[0]
    torch.testing.assert_close(found.loss, expected)
    torch.testing.assert_close(torch.autograd.grad(found.loss, embedding.weight), torch.autograd.grad(expected, embedding.weight))


@pytest.mark.parametrize(
    ("formula", "message"),
    [(lambda z, y: (z - y).square().mean(), "one loss a row, without a mean"), (lambda z, y: z - y, "one loss a row")],
)
def test_a_formula_of_another_shape_is_refused(formula, message):
    head, token, _, _ = drawn(9)
    with pytest.raises(ValueError, match=message):
        linear_loss(formula, *head[:2], token)
