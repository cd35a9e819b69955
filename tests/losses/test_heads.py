from itertools import product
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from raw2s.losses import (
    FusedHead,
    HeadLoss,
    cross_entropy,
    edl_loss,
    edl_terms,
    linear_cross_entropy,
    linear_edl_loss,
    linear_log_probs,
    linear_rows,
    mix_targets,
    mix_with_own_prediction,
    soft_label,
)
from raw2s.losses.edl import EDLForm, Evidence

FORMS, EVIDENCES = get_args(EDLForm), get_args(Evidence)
N, H, V = 7, 5, 23
EDL_OPTIONS = [
    {"evidence": evidence, "form": form, "logit_clamp": logit_clamp, "kl_clamp": kl_clamp, "kl_weight": kl_weight}
    for evidence, form, (logit_clamp, kl_clamp, kl_weight) in product(
        EVIDENCES, FORMS, [(None, None, 0.3), (2.0, None, 0.3), (None, 20.0, 0.3), (None, None, 0.0)]
    )
]


@pytest.fixture(params=[1, 3], ids=["one chunk", "chunks"])
def chunked(request: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    """One chunk of all rows, or three of unequal size, each in blocks of two rows."""
    if request.param > 1:
        monkeypatch.setattr(linear_rows, "_MIN_CHUNK_ROWS", 3)
        monkeypatch.setattr(linear_rows, "_CHUNK_BYTES", {"cpu": 1})
        monkeypatch.setattr(linear_rows, "_KEPT_BYTES", {"cpu": 1})
        monkeypatch.setattr(linear_rows, "_BLOCK_ELEMENTS_ON_CPU", 2 * V)
    return int(request.param)


def head(seed: int, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(N, H), (V, H), (V,)]
    hidden, weight, bias = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return (scale * hidden).to(dtype), weight.to(dtype), bias.to(dtype)


def rows(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Target pieces, the teachers' probabilities for them (0 and 1 among them), and row weights (0 among them)."""
    generator = torch.Generator().manual_seed(seed)
    token = torch.randint(V, (N,), generator=generator)
    prob, weight = torch.rand(2, N, generator=generator, dtype=torch.float64)
    prob[:2], weight[2] = torch.tensor([0.0, 1.0], dtype=torch.float64), 0.0
    return token, prob, weight


def plain(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, token: Tensor, prob: Tensor | None, gamma: float, options: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """Every row's loss by the losses on logits, cross entropy for no options; and the logits."""
    logits = F.linear(hidden, weight, bias)
    label = F.one_hot(token, len(weight)).to(logits.dtype) if prob is None else soft_label(logits, token, prob)
    target = mix_with_own_prediction(label, logits, gamma)
    if options:
        return edl_loss(logits, target, reduction="none", **options), logits
    return cross_entropy(logits, target, reduction="none"), logits


def fused(*args: Any, options: dict[str, Any], **others: Any) -> HeadLoss:
    return linear_edl_loss(*args, **others, **options) if options else linear_cross_entropy(*args, **others)


@pytest.mark.parametrize("options", [{}, *EDL_OPTIONS], ids=lambda o: "-".join(str(v) for v in o.values()) or "ce")
@pytest.mark.parametrize("soft, gamma", [(False, 0.0), (False, 0.3), (True, 0.0), (True, 0.3)])
def test_equals_the_losses_on_logits(options: dict[str, Any], soft: bool, gamma: float, chunked: int) -> None:
    for seed, scale in enumerate((0.1, 1.0, 8.0)):
        token, prob, row_weight = rows(seed)
        target_prob = prob if soft else None
        operands = [x.requires_grad_() for x in head(seed, scale)]
        token[0] = F.linear(*operands)[0].argmax()
        expected, logits = plain(*operands, token, target_prob, gamma, options)
        got = fused(*operands[:2], token, target_prob, bias_V=operands[2], row_weight_N=row_weight, gamma=gamma, options=options)
        torch.testing.assert_close(got.loss, (row_weight * expected).sum(), rtol=1e-9, atol=1e-12)
        grads = torch.autograd.grad(got.loss, operands)
        exact = torch.autograd.grad((row_weight * expected).sum(), operands)
        for grad, reference in zip(grads, exact, strict=True):
            assert (grad - reference).abs().max() <= 1e-8 * reference.abs().max()
        torch.testing.assert_close(got.max_prob_N, logits.softmax(-1).amax(-1))
        if not options:
            torch.testing.assert_close(got.nll_N, expected)
        else:
            label = F.one_hot(token, V).double() if target_prob is None else soft_label(logits, token, prob)
            terms = {name: value for name, value in options.items() if name != "kl_weight"}
            nll, kl = edl_terms(logits, mix_with_own_prediction(label, logits, gamma), **terms)
            torch.testing.assert_close(got.nll_N, nll)
            if options["kl_weight"]:
                torch.testing.assert_close(got.kl_N, kl)
            else:
                assert got.kl_N is None


@pytest.mark.parametrize("chunked", [3], indirect=True)
@pytest.mark.parametrize("options", [{}, *EDL_OPTIONS[::4]], ids=lambda o: "-".join(str(v) for v in o.values()) or "ce")
def test_gradcheck(options: dict[str, Any], chunked: int) -> None:
    """By random projections; entry by entry, and in one chunk too, gradients are compared with autograd's above.

    Where the target moves with the logits and counts as a constant all the same, the numerical derivative is of the plain
    loss with that target fixed, and the fused gradient is compared with its; else it is taken of the fused head itself.
    """
    token, prob, row_weight = rows(3)
    operands = [x.requires_grad_() for x in head(3, 0.7)]
    for gamma, certain in ((0.0, None), (0.4, torch.ones_like(prob))):
        assert torch.autograd.gradcheck(
            lambda h, w, b, gamma=gamma, certain=certain: (
                fused(h, w, token, certain, bias_V=b, row_weight_N=row_weight, gamma=gamma, options=options).loss
            ),
            operands,
            fast_mode=True,
        )
    label = soft_label(F.linear(*operands).detach(), token, prob)
    loss_on = edl_loss if options else cross_entropy

    def with_fixed_label(h: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return (row_weight * loss_on(F.linear(h, w, b), label, reduction="none", **options)).sum()

    assert torch.autograd.gradcheck(with_fixed_label, operands, fast_mode=True)
    got = fused(*operands[:2], token, prob, bias_V=operands[2], row_weight_N=row_weight, options=options)
    grads = torch.autograd.grad(got.loss, operands)
    torch.testing.assert_close(grads, torch.autograd.grad(with_fixed_label(*operands), operands))


def test_log_probs(chunked: int) -> None:
    hidden, weight, bias = (x.requires_grad_() for x in head(4, 2.0))
    token, _, upstream = rows(4)
    log_prob, max_prob = linear_log_probs(hidden, weight, token, bias_V=bias)
    log_p = F.linear(hidden, weight, bias).log_softmax(-1)
    expected = log_p.gather(-1, token[:, None])[:, 0]
    torch.testing.assert_close(log_prob, expected)
    torch.testing.assert_close(max_prob, log_p.exp().amax(-1))
    assert not max_prob.requires_grad
    grads = torch.autograd.grad(log_prob, (hidden, weight, bias), upstream)
    torch.testing.assert_close(grads, torch.autograd.grad(expected, (hidden, weight, bias), upstream))
    assert torch.autograd.gradcheck(lambda h, w, b: linear_log_probs(h, w, token, bias_V=b)[0], (hidden, weight, bias))


@pytest.mark.parametrize("options", [{}, EDL_OPTIONS[0]], ids=["ce", "edl"])
def test_the_teachers_probability_may_depend_on_the_students_confidence(options: dict[str, Any], chunked: int) -> None:
    hidden, weight, bias = (x.requires_grad_() for x in head(5))
    token, prob, _ = rows(5)
    seen = []

    def bridge(max_prob: Tensor) -> Tensor:
        seen.append(max_prob)
        return prob * max_prob

    got = fused(hidden, weight, token, bridge, bias_V=bias, gamma=0.2, options=options)
    torch.testing.assert_close(seen, [F.linear(hidden, weight, bias).softmax(-1).amax(-1).detach()])
    expected = fused(hidden, weight, token, prob * seen[0], bias_V=bias, gamma=0.2, options=options)
    torch.testing.assert_close(got, expected)
    grads = [torch.autograd.grad(loss, (hidden, weight, bias)) for loss in (got.loss, expected.loss)]
    torch.testing.assert_close(*grads)


def test_logits_never_stand_for_more_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_rows, "_MIN_CHUNK_ROWS", 16)
    monkeypatch.setattr(linear_rows, "_CHUNK_BYTES", {"cpu": 1})
    monkeypatch.setattr(linear_rows, "_KEPT_BYTES", {"cpu": 1})
    seen = []
    blocks = linear_rows.blocks
    monkeypatch.setattr(linear_rows, "blocks", lambda logits, *a, **o: (seen.append(len(logits)), blocks(logits, *a, **o))[1])
    hidden, weight, token = torch.randn(100, H), torch.randn(V, H, requires_grad=True), torch.zeros(100, dtype=torch.long)
    for run in (
        lambda: linear_cross_entropy(hidden, weight, token, lambda max_prob: max_prob).loss,
        lambda: linear_edl_loss(hidden, weight, token, kl_weight=0.1).loss,
        lambda: linear_log_probs(hidden, weight, token)[0].sum(),
    ):
        seen.clear()
        run().backward()
        assert sum(seen) in (100, 200) and max(seen) <= 16


def test_one_weight_used_twice_and_gradients_accumulated() -> None:
    """A tied embedding that is also read as input, two heads on one weight, two micro-batches."""
    hidden, weight, bias = head(6)
    token, prob, _ = rows(6)
    tied = {kind: nn.Embedding.from_pretrained(weight.clone(), freeze=False) for kind in ("fused", "plain")}
    for part in (slice(0, 3), slice(3, N)):
        for kind, embedding in tied.items():
            h = hidden[part] + embedding(token[part])
            if kind == "fused":
                loss = 3 * linear_cross_entropy(h, embedding.weight, token[part], bias_V=bias).loss
                loss = loss + linear_edl_loss(h, embedding.weight, token[part], prob[part], kl_weight=0.1).loss
                loss = loss + linear_log_probs(h, embedding.weight, token[part])[0].sum()
            else:
                loss = 3 * plain(h, embedding.weight, bias, token[part], None, 0.0, {})[0].sum()
                loss = loss + plain(h, embedding.weight, None, token[part], prob[part], 0.0, {"kl_weight": 0.1})[0].sum()
                loss = loss - plain(h, embedding.weight, None, token[part], None, 0.0, {})[0].sum()
            loss.backward()
    torch.testing.assert_close(tied["fused"].weight.grad, tied["plain"].weight.grad)


@pytest.mark.parametrize("log_probs", [False, True])
def test_a_kept_graph_may_run_backward_again(log_probs: bool, chunked: int) -> None:
    hidden, weight, _ = (x.requires_grad_() for x in head(7))
    token, _, _ = rows(7)
    loss = linear_log_probs(hidden, weight, token)[0].sum() if log_probs else linear_cross_entropy(hidden, weight, token).loss
    first = torch.autograd.grad(2 * loss, (hidden, weight), retain_graph=True)
    kept = [grad.clone() for grad in first]
    second = torch.autograd.grad(4 * loss, (hidden, weight))
    torch.testing.assert_close(list(first), kept)
    torch.testing.assert_close(second, tuple(2 * grad for grad in first))
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_only_what_needs_a_gradient_gets_one() -> None:
    token, _, _ = rows(8)
    for needed in product((False, True), repeat=3):
        operands = [x.requires_grad_(need) for x, need in zip(head(8), needed, strict=True)]
        outputs = [linear_cross_entropy(*operands[:2], token, bias_V=operands[2]).loss]
        outputs.append(linear_log_probs(*operands[:2], token, bias_V=operands[2])[0].sum())
        for loss in outputs:
            assert loss.requires_grad == any(needed)
            if any(needed):
                loss.backward()
        assert [x.grad is not None for x in operands] == list(needed)
    with torch.no_grad():
        assert not linear_edl_loss(*operands[:2], token, kl_weight=0.1).loss.requires_grad


def test_no_rows() -> None:
    hidden, weight, _ = (x.requires_grad_() for x in head(9))
    nothing = torch.zeros(0, dtype=torch.long)
    for got in (linear_cross_entropy(hidden[:0], weight, nothing), linear_edl_loss(hidden[:0], weight, nothing, kl_weight=0.1)):
        got.loss.backward()
        assert got.loss == 0 and got.max_prob_N.shape == (0,)
    assert weight.grad is not None and not weight.grad.any()


def unit_head(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden states and weight that make these logits exactly: the gradient by the weight is then that by the logits."""
    return torch.eye(len(logits), dtype=logits.dtype), logits.T.contiguous().requires_grad_()


@pytest.mark.parametrize("options", [{}, *EDL_OPTIONS[::4]], ids=lambda o: "-".join(str(v) for v in o.values()) or "ce")
def test_finite_at_extreme_logits_and_probabilities_in_float32(options: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(10)
    logits = torch.randn(6, 32_000, generator=generator)
    logits[0] = 80.0
    logits[1] = -80.0
    logits[2, ::2], logits[2, 1::2] = 80.0, -80.0
    logits[3, 7], logits[4, 8], logits[5, 7] = 80.0, 80.0, -80.0
    token = torch.full((6,), 7)
    for prob, gamma in product((None, 0.0, 0.5, 1.0), (0.0, 0.5, 1.0)):
        hidden, weight = unit_head(logits)
        got = fused(hidden, weight, token, None if prob is None else torch.full((6,), prob), gamma=gamma, options=options)
        got.loss.backward()
        assert got.loss.isfinite() and got.nll_N.isfinite().all() and got.max_prob_N.isfinite().all()
        assert weight.grad is not None and weight.grad.isfinite().all()


@pytest.mark.parametrize("vocabulary", [32_000, 151_936])
@pytest.mark.parametrize("options", [{}, *({"form": form, "kl_weight": 1e-2} for form in FORMS)], ids=["ce", *FORMS])
def test_float32_gradient_at_a_real_vocabulary(vocabulary: int, options: dict[str, Any]) -> None:
    """Within 1e-6 of float64 relative to the largest entry, in every row.

    The rows: confident and right, confident and wrong, a soft label on a flat distribution, a token that the teachers exclude,
    a student sure of what the teachers half believe, next to no evidence, a great deal of it.
    """
    generator = torch.Generator().manual_seed(11)
    logits = 2 * torch.randn(7, vocabulary, generator=generator) - 1
    token = torch.arange(5, 12)
    logits[0, 5], logits[1, 9], logits[2, 7], logits[4, 9] = 20.0, 14.0, 6.0, 25.0
    logits[5] -= 12.0
    logits[6] += 40.0
    soft = torch.tensor([1.0, 0.2, 0.9, 0.0, 0.5, 0.4, 0.6])
    for prob, gamma in ((None, 0.0), (None, 0.2), (soft, 0.0), (soft, 0.2)):
        grads = []
        for dtype in (torch.float32, torch.float64):
            hidden, weight = unit_head(logits.to(dtype))
            got = fused(hidden, weight, token, None if prob is None else prob.to(dtype), gamma=gamma, options=options)
            grads.append(torch.autograd.grad(got.loss, weight)[0].double())
        error = (grads[0] - grads[1]).abs().amax(0) / grads[1].abs().amax(0)
        assert error.max() < 1e-6, error


@pytest.mark.parametrize("evidence, form", product(("softplus", "relu"), FORMS))
def test_float32_gradient_of_other_evidences(evidence: Evidence, form: EDLForm) -> None:
    generator = torch.Generator().manual_seed(16)
    logits = 2 * torch.randn(5, 32_000, generator=generator) - 1
    token, prob = torch.arange(5, 10), torch.tensor([1.0, 0.2, 0.9, 0.0, 0.5])
    logits[0, 5], logits[1, 9], logits[2, 7], logits[4, 9] = 20.0, 14.0, 6.0, 25.0
    grads = []
    for dtype in (torch.float32, torch.float64):
        hidden, weight = unit_head(logits.to(dtype))
        got = linear_edl_loss(hidden, weight, token, prob.to(dtype), kl_weight=1e-2, gamma=0.2, evidence=evidence, form=form)
        grads.append(torch.autograd.grad(got.loss, weight)[0].double())
    assert ((grads[0] - grads[1]).abs().amax(0) / grads[1].abs().amax(0)).max() < 1e-6


@pytest.mark.parametrize("vocabulary", [32_000, 151_936])
def test_float32_log_probs_at_a_real_vocabulary(vocabulary: int) -> None:
    logits = 3 * torch.randn(4, vocabulary, generator=torch.Generator().manual_seed(17))
    logits[0, 5], logits[1, 9] = 25.0, 25.0
    token, values, grads = torch.tensor([5, 6, 7, 8]), [], []
    for dtype in (torch.float32, torch.float64):
        hidden, weight = unit_head(logits.to(dtype))
        log_prob, max_prob = linear_log_probs(hidden, weight, token)
        values.append((log_prob.double(), max_prob.double()))
        grads.append(torch.autograd.grad(log_prob.sum(), weight)[0].double())
    torch.testing.assert_close(*values, rtol=1e-6, atol=1e-6)
    assert ((grads[0] - grads[1]).abs().amax(0) / grads[1].abs().amax(0)).max() < 1e-6


def test_edl_oracle(oracle: dict[str, list[dict[str, Any]]]) -> None:
    """Any target, as so many rows of one piece each: the form `expected` is linear in it."""
    cases = [case for case in oracle["edl_expected"] if len(case["logits"]) >= 16]
    assert {case["evidence"] for case in cases} == set(EVIDENCES)
    for case in cases:
        weight = torch.tensor(case["logits"], dtype=torch.float64).unsqueeze(1).requires_grad_()
        hidden, target = torch.ones_like(weight).detach(), torch.tensor(case["target"], dtype=torch.float64)
        pieces = torch.arange(len(weight))
        got = linear_edl_loss(hidden, weight, pieces, kl_weight=case["lam"], evidence=case["evidence"], row_weight_N=target)
        assert got.loss.item() == pytest.approx(case["loss"], rel=1e-9)
        grad = torch.tensor(case["grad"], dtype=torch.float64)
        assert (torch.autograd.grad(got.loss, weight)[0][:, 0] - grad).abs().max() < 1e-8 * grad.abs().max()


def test_soft_label_oracle(oracle: dict[str, list[dict[str, Any]]]) -> None:
    for case in oracle["soft_label_ce"]:
        logits = torch.tensor([case["logits"]], dtype=torch.float64)
        hidden, weight = unit_head(logits)
        prob = torch.tensor([case["p_word_share"]], dtype=torch.float64)
        got = linear_cross_entropy(hidden, weight, torch.tensor([case["token"]]), prob)
        assert got.loss.item() == pytest.approx(case["loss"], rel=1e-9)
        grad = torch.tensor(case["grad"], dtype=torch.float64)
        assert (torch.autograd.grad(got.loss, weight)[0][:, 0] - grad).abs().max() < 1e-8 * grad.abs().max()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(-50, 50), st.booleans())
def test_a_shift_of_all_logits_changes_no_cross_entropy(seed: int, shift: float, soft: bool) -> None:
    hidden, weight, bias = head(seed)
    token, prob, _ = rows(seed)
    losses = [
        linear_cross_entropy(hidden, weight, token, prob if soft else None, bias_V=b, gamma=0.3) for b in (bias, bias + shift)
    ]
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*(linear_log_probs(hidden, weight, token, bias_V=b) for b in (bias, bias + shift)))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(0, 10_000), st.sampled_from([{}, EDL_OPTIONS[0]]), st.sampled_from([0.0, 0.3]))
def test_teachers_of_one_sequence_are_one_call(teachers: int, seed: int, options: dict[str, Any], gamma: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden, weight, bias = (x.requires_grad_() for x in head(seed))
    token, _, _ = rows(seed)
    prob, row_weight = torch.rand(2, teachers, N, generator=generator, dtype=torch.float64)
    apart = [
        fused(hidden, weight, token, p, bias_V=bias, row_weight_N=w, gamma=gamma, options=options)
        for p, w in zip(prob, row_weight, strict=True)
    ]
    mean = mix_targets(prob.unsqueeze(-1), row_weight).squeeze(-1)
    together = fused(hidden, weight, token, mean, bias_V=bias, row_weight_N=row_weight.sum(0), gamma=gamma, options=options)
    total = torch.stack([one.loss for one in apart]).sum()
    torch.testing.assert_close(together.loss, total)
    grads = [torch.autograd.grad(loss, (hidden, weight, bias)) for loss in (together.loss, total)]
    torch.testing.assert_close(*grads)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([{}, *EDL_OPTIONS]), st.booleans())
def test_pieces_may_be_permuted(seed: int, options: dict[str, Any], soft: bool) -> None:
    hidden, weight, bias = head(seed)
    token, prob, row_weight = rows(seed)
    order = torch.randperm(V, generator=torch.Generator().manual_seed(seed))
    common = {"row_weight_N": row_weight, "gamma": 0.3, "options": options}
    target_prob = prob if soft else None
    loss = fused(hidden, weight, token, target_prob, bias_V=bias, **common).loss
    permuted = fused(hidden, weight[order], order.argsort()[token], target_prob, bias_V=bias[order], **common).loss
    torch.testing.assert_close(loss, permuted)


@pytest.mark.parametrize("options", [{}, EDL_OPTIONS[0]], ids=["ce", "edl"])
def test_half_precision_operands(options: dict[str, Any]) -> None:
    """The loss as in fp32; gradients within the rounding of the logits' gradient and of the results to bf16, 2⁻⁸ each."""
    hidden, weight, bias = head(12, dtype=torch.bfloat16)
    token, prob, _ = rows(12)
    results = []
    for dtype in (torch.bfloat16, torch.float32):
        operands = [x.to(dtype).requires_grad_() for x in (hidden, weight, bias)]
        got = fused(*operands[:2], token, prob.to(dtype), bias_V=operands[2], options=options)
        results.append((got, torch.autograd.grad(got.loss, operands)))
    (half, half_grads), (full, full_grads) = results
    assert half.loss.dtype == half.nll_N.dtype == half.max_prob_N.dtype == torch.float32
    torch.testing.assert_close(half.max_prob_N, full.max_prob_N)
    for grad, reference in zip(half_grads, full_grads, strict=True):
        assert grad.dtype == torch.bfloat16 and grad.isfinite().all()
        assert (grad - reference).abs().max() < 2**-7 * reference.abs().max()


@pytest.mark.parametrize("options", [{}, *({"form": form, "kl_weight": 1e-4} for form in FORMS)], ids=["ce", *FORMS])
def test_half_precision_at_a_real_vocabulary(options: dict[str, Any]) -> None:
    """Against float64 from the same operands: the error of gradients is their own rounding to bf16, 2⁻⁸, and no more."""
    generator = torch.Generator().manual_seed(18)
    hidden = torch.randn(24, 16, generator=generator).bfloat16()
    weight = (0.75 * torch.randn(32_000, 16, generator=generator)).bfloat16()
    token, prob = torch.randint(32_000, (24,), generator=generator), torch.rand(24, generator=generator)
    results = []
    for dtype in (torch.bfloat16, torch.float64):
        operands = [x.to(dtype).requires_grad_() for x in (hidden, weight)]
        got = fused(*operands, token, prob, gamma=0.2, options=options)
        results.append((got.loss.double(), *(g.double() for g in torch.autograd.grad(got.loss, operands))))
    (loss, *grads), (exact_loss, *exact) = results
    assert abs(loss - exact_loss) < 1e-6 * abs(exact_loss)
    for grad, reference in zip(grads, exact, strict=True):
        assert grad.isfinite().all() and (grad - reference).abs().max() < 2**-8 * reference.abs().max()


def test_autocast_does_not_reach_inside() -> None:
    hidden, weight, bias = (x.requires_grad_() for x in head(13, dtype=torch.float32))
    token, _, _ = rows(13)
    expected = linear_cross_entropy(hidden, weight, token, bias_V=bias).loss
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(linear_cross_entropy(hidden, weight, token, bias_V=bias).loss, expected, rtol=0, atol=0)


def test_a_head_shares_the_embeddings_weight() -> None:
    embedding = nn.Linear(H, V, dtype=torch.float64)
    module = FusedHead(embedding)
    assert module.weight is embedding.weight and module.bias is embedding.bias
    assert FusedHead(nn.Embedding(V, H)).bias is None
    hidden, _, _ = head(14)
    token, prob, _ = rows(14)
    got = module(linear_edl_loss, hidden, token, prob, kl_weight=0.1)
    torch.testing.assert_close(
        got.loss, plain(hidden, embedding.weight, embedding.bias, token, prob, 0.0, {"kl_weight": 0.1})[0].sum()
    )


def test_what_does_not_fit_is_refused() -> None:
    hidden, weight, bias = head(15)
    token, prob, _ = rows(15)
    for wrong in ({"hidden_NH": hidden[:, :3]}, {"weight_VH": weight[0]}, {"bias_V": bias[:-1]}, {"token_N": token[:-1]}):
        with pytest.raises(ValueError, match="fit"):
            linear_cross_entropy(**{"hidden_NH": hidden, "weight_VH": weight, "token_N": token, **wrong})
    for wrong in ({"token_prob": prob[:1]}, {"row_weight_N": prob[:1]}):
        with pytest.raises(ValueError, match="per row"):
            linear_cross_entropy(hidden, weight, token, **wrong)
    for wrong in ({"evidence": "log"}, {"form": "hard"}):
        with pytest.raises(ValueError, match=next(iter(wrong.values()))):
            linear_edl_loss(hidden, weight, token, kl_weight=0.1, **wrong)
    with pytest.raises(ValueError, match="use edl_loss"):
        linear_edl_loss(hidden, weight[:5], token, kl_weight=0.1)
