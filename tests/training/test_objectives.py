import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from raw2s.decoding.packing import PackedRows
from raw2s.losses import FusedHead
from raw2s.training import objectives
from raw2s.training.batching import Batch
from raw2s.training.job import LossSettings
from raw2s.training.objectives import Coefficients

N, V, W = 6, 18, 4  # target tokens, vocabulary, words
WORD_N = torch.tensor([0, 0, 1, 2, 2, 3])
WEIGHTS = torch.tensor([0.6, 0.3], dtype=torch.float64)
PLAIN = Coefficients(gamma=0.0, kl=0.0)
CE = LossSettings()
EDL = LossSettings(edl=True)
EVIDENCE = ["exp", "softplus", "relu"]


@pytest.fixture
def logits_NV():
    generator = torch.Generator().manual_seed(5)
    return (2 * torch.randn(N, V, generator=generator, dtype=torch.float64)).requires_grad_()


@pytest.fixture
def token_N():
    return torch.randint(V, (N,), generator=torch.Generator().manual_seed(6))


@pytest.fixture
def word_logprob_IW():
    return -2 * torch.rand(2, W, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def batch_of(token_N, weight_IN, word_N=WORD_N, word_logprob_IW=None, **fields) -> Batch:
    """A batch as the losses read it: they never look at the text."""
    nothing = torch.zeros(0)
    unused = {"rows": PackedRows(nothing, nothing, nothing, 0), "predictor_N": nothing, "sequence_N": nothing}
    empty = {"probabilities_PK": nothing, "reference_P2": nothing}
    return Batch(**unused | empty | fields, token_N=token_N, weight_IN=weight_IN, word_N=word_N, word_logprob_IW=word_logprob_IW)


def on_logits(objective, head):
    """The objective of a model whose hidden states are its logits."""

    def run(logits, batch, settings, at):
        loss, logged = objective(head(logits.dtype), logits, batch, settings, at)
        return loss, {name: value.item() for name, value in logged.items()}

    return run


def identity(dtype) -> FusedHead:
    head = torch.nn.Linear(V, V, bias=False, dtype=dtype)
    torch.nn.init.eye_(head.weight)
    return FusedHead(head.requires_grad_(False))


token_loss = on_logits(objectives.token_loss, identity)
preference_loss = on_logits(objectives.preference_loss, identity)
class_loss = on_logits(objectives.class_loss, lambda _: torch.nn.Identity())


def ones(count: int = N) -> torch.Tensor:
    return torch.ones(1, count, dtype=torch.float64)


def gradient(loss, logits) -> torch.Tensor:
    return torch.autograd.grad(loss, logits)[0]


def one_hot(index_N, classes: int = V) -> torch.Tensor:
    return F.one_hot(index_N, classes).double()


@pytest.mark.parametrize("gamma", [0.0, 0.3])
@pytest.mark.parametrize("bridge", ["log", "eq8", "equal"])
@pytest.mark.parametrize("settings", [CE, EDL], ids=["ce", "edl"])
def test_teachers_of_one_sequence_in_one_row_lose_what_they_lose_apart(
    logits_NV, token_N, word_logprob_IW, settings, bridge, gamma
):
    settings = dataclasses.replace(settings, bridge=bridge)
    coefficients = Coefficients(gamma=gamma, kl=0.02)
    merged = batch_of(token_N, WEIGHTS[:, None].expand(2, N), word_logprob_IW=word_logprob_IW)
    apart = batch_of(
        token_N.repeat(2), WEIGHTS.repeat_interleave(N)[None], torch.cat([WORD_N, WORD_N + W]), word_logprob_IW.reshape(1, 2 * W)
    )
    together, logged = token_loss(logits_NV, merged, settings, coefficients)
    separate, logged_apart = token_loss(logits_NV.repeat(2, 1), apart, settings, coefficients)
    torch.testing.assert_close(together, separate)
    torch.testing.assert_close(gradient(together, logits_NV), gradient(separate, logits_NV))
    assert logged == pytest.approx(logged_apart)


@pytest.mark.parametrize("settings", [CE, EDL], ids=["ce", "edl"])
def test_a_loss_is_a_sum_over_tokens_by_weight(logits_NV, token_N, settings):
    weight_IN = torch.arange(1.0, N + 1, dtype=torch.float64)[None]
    coefficients = Coefficients(gamma=0.2, kl=0.1)
    whole, _ = token_loss(logits_NV, batch_of(token_N, weight_IN), settings, coefficients)
    parts = [token_loss(logits_NV[n : n + 1], batch_of(token_N[n : n + 1], ones(1)), settings, coefficients)[0] for n in range(N)]
    torch.testing.assert_close(whole, sum((n + 1) * part for n, part in enumerate(parts)))


def test_cross_entropy_of_hard_labels(logits_NV, token_N):
    loss, logged = token_loss(logits_NV, batch_of(token_N, ones()), CE, PLAIN)
    probability_NV = logits_NV.exp() / logits_NV.exp().sum(dim=1, keepdim=True)
    torch.testing.assert_close(loss, -probability_NV[range(N), token_N].log().sum())
    assert logged == {}


@pytest.mark.parametrize("evidence", EVIDENCE)
def test_edl_without_its_regulariser_is_its_likelihood(logits_NV, token_N, evidence):
    loss, logged = token_loss(logits_NV, batch_of(token_N, ones()), dataclasses.replace(EDL, evidence=evidence), PLAIN)
    function = {"exp": torch.exp, "softplus": F.softplus, "relu": F.relu}[evidence]
    alpha_NV = function(logits_NV) + 1
    torch.testing.assert_close(loss, (alpha_NV.sum(dim=1).log() - alpha_NV[range(N), token_N].log()).sum())
    assert logged == {"nll": pytest.approx(loss.item())}


@pytest.mark.parametrize("form", ["expected", "soft"])
def test_edl_adds_its_regulariser_by_weight(logits_NV, token_N, word_logprob_IW, form):
    settings = dataclasses.replace(EDL, form=form)
    batch = batch_of(token_N, WEIGHTS[:, None].expand(2, N), word_logprob_IW=word_logprob_IW)
    likelihood, _ = token_loss(logits_NV, batch, settings, PLAIN)
    loss, logged = token_loss(logits_NV, batch, settings, Coefficients(gamma=0.0, kl=0.25))
    assert logged["kl"] > 0
    assert logged["nll"] == pytest.approx(likelihood.item())
    assert loss.item() == pytest.approx(logged["nll"] + 0.25 * logged["kl"])


@pytest.mark.parametrize("settings", [CE, EDL, dataclasses.replace(EDL, form="soft")], ids=["ce", "edl", "edl_soft"])
def test_hard_labels_are_soft_ones_of_probability_one(logits_NV, token_N, settings):
    coefficients = Coefficients(gamma=0.2, kl=0.1)
    certain = batch_of(token_N, WEIGHTS[:, None].expand(2, N), word_logprob_IW=torch.zeros(2, W, dtype=torch.float64))
    hard = batch_of(token_N, WEIGHTS[:, None].expand(2, N))
    soft_loss, _ = token_loss(logits_NV, certain, settings, coefficients)
    hard_loss, _ = token_loss(logits_NV, hard, settings, coefficients)
    torch.testing.assert_close(soft_loss, hard_loss)
    torch.testing.assert_close(gradient(soft_loss, logits_NV), gradient(hard_loss, logits_NV))


def test_soft_cross_entropy_pulls_towards_the_teachers_probability(logits_NV, token_N):
    """Its gradient at the target is p_s - P, and the words' probability P(W) is shared by the bridge."""
    word_logprob_IW = torch.tensor([[math.log(0.25), math.log(0.5), math.log(0.36), math.log(0.9)]], dtype=torch.float64)
    settings = dataclasses.replace(CE, bridge="equal")
    loss, _ = token_loss(logits_NV, batch_of(token_N, ones(), word_logprob_IW=word_logprob_IW), settings, PLAIN)
    expected_N = torch.tensor([0.5, 0.5, 0.5, 0.6, 0.6, 0.9], dtype=torch.float64)
    student_N = logits_NV.softmax(dim=1)[range(N), token_N]
    torch.testing.assert_close(gradient(loss, logits_NV)[range(N), token_N], (student_N - expected_N).detach())


def test_a_teacher_without_weight_has_no_say(logits_NV, token_N, word_logprob_IW):
    coefficients = Coefficients(gamma=0.1, kl=0.1)
    alone = batch_of(token_N, ones(), word_logprob_IW=word_logprob_IW[:1])
    mute = batch_of(token_N, torch.cat([ones(), 0 * ones()]), word_logprob_IW=word_logprob_IW)
    for settings in (CE, EDL):
        torch.testing.assert_close(
            token_loss(logits_NV, mute, settings, coefficients)[0], token_loss(logits_NV, alone, settings, coefficients)[0]
        )


@pytest.mark.parametrize("settings", [CE, EDL], ids=["ce", "edl"])
@pytest.mark.parametrize("kl", [0.0, 0.1])
def test_gamma_mixes_in_the_loss_on_the_students_own_prediction(logits_NV, token_N, word_logprob_IW, settings, kl):
    taught = batch_of(token_N, ones(), word_logprob_IW=word_logprob_IW[:1])
    own = batch_of(logits_NV.argmax(dim=1), ones())
    teachers, _ = token_loss(logits_NV, taught, settings, Coefficients(gamma=0.0, kl=kl))
    student, _ = token_loss(logits_NV, own, settings, Coefficients(gamma=0.0, kl=kl))
    mixed, _ = token_loss(logits_NV, taught, settings, Coefficients(gamma=0.3, kl=kl))
    torch.testing.assert_close(mixed, 0.7 * teachers + 0.3 * student)
    torch.testing.assert_close(
        gradient(mixed, logits_NV), 0.7 * gradient(teachers, logits_NV) + 0.3 * gradient(student, logits_NV)
    )


@pytest.mark.parametrize("settings", [CE, EDL], ids=["ce", "edl"])
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_bf16_logits_are_summed_over_the_vocabulary_in_fp32(logits_NV, token_N, word_logprob_IW, settings, soft):
    batch = batch_of(token_N, ones().float(), word_logprob_IW=word_logprob_IW[:1].float() if soft else None)
    coefficients = Coefficients(gamma=0.3, kl=0.1)
    rounded_NV = logits_NV.detach().bfloat16()
    loss, _ = token_loss(rounded_NV, batch, settings, coefficients)
    torch.testing.assert_close(loss, token_loss(rounded_NV.float(), batch, settings, coefficients)[0])


def class_batch(probabilities_PK) -> Batch:
    return batch_of(torch.zeros(0), torch.zeros(0), torch.zeros(0), probabilities_PK=probabilities_PK)


@pytest.mark.parametrize("settings", [CE, EDL], ids=["ce", "edl"])
@pytest.mark.parametrize("kl", [0.0, 0.1])
def test_classes_of_several_teachers_lose_their_weighted_sum(logits_NV, settings, kl):
    teachers = torch.rand(2, N, V, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    teachers = teachers / teachers.sum(dim=-1, keepdim=True)
    coefficients = Coefficients(gamma=0.0, kl=kl)
    mixed, _ = class_loss(logits_NV, class_batch(0.75 * teachers[0] + 0.25 * teachers[1]), settings, coefficients)
    one, other = (class_loss(logits_NV, class_batch(teacher), settings, coefficients)[0] for teacher in teachers)
    torch.testing.assert_close(mixed, 0.75 * one + 0.25 * other)


@pytest.mark.parametrize("settings", [CE, EDL], ids=["ce", "edl"])
def test_gamma_mixes_in_the_students_own_class(logits_NV, token_N, settings):
    taught, own = class_batch(one_hot(token_N)), class_batch(one_hot(logits_NV.argmax(dim=1)))
    teachers, student = (class_loss(logits_NV, batch, settings, Coefficients(gamma=0.0, kl=0.1))[0] for batch in (taught, own))
    mixed, _ = class_loss(logits_NV, taught, settings, Coefficients(gamma=0.3, kl=0.1))
    torch.testing.assert_close(mixed, 0.7 * teachers + 0.3 * student)


@pytest.mark.parametrize("settings", [CE, EDL], ids=["ce", "edl"])
def test_a_class_loses_what_a_token_does(logits_NV, token_N, settings):
    coefficients = Coefficients(gamma=0.1, kl=0.1)
    as_class, logged = class_loss(logits_NV, class_batch(one_hot(token_N)), settings, coefficients)
    as_token, logged_token = token_loss(logits_NV, batch_of(token_N, ones()), settings, coefficients)
    torch.testing.assert_close(as_class, as_token)
    assert logged == pytest.approx(logged_token)


def test_class_edl_without_its_regulariser_is_its_likelihood(logits_NV, token_N):
    loss, logged = class_loss(logits_NV, class_batch(one_hot(token_N)), EDL, PLAIN)
    alpha_NV = logits_NV.exp() + 1
    torch.testing.assert_close(loss, (alpha_NV.sum(dim=1).log() - alpha_NV[range(N), token_N].log()).sum())
    assert logged == {"nll": pytest.approx(loss.item())}


SEQUENCE_N = torch.tensor([0, 0, 1, 2, 2, 3])  # two pairs: chosen, rejected, chosen, rejected


def sequence_logprobs(logits_NV, token_N) -> torch.Tensor:
    """(pairs, 2) summed log-probabilities, by a loop."""
    logprob_N = logits_NV.detach().log_softmax(dim=1)[range(N), token_N]
    return torch.stack([logprob_N[sequence == SEQUENCE_N].sum() for sequence in range(4)]).view(2, 2)


@pytest.mark.parametrize("beta", [0.1, 10.0])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_preference_at_the_reference_loses_log_2_a_pair(logits_NV, token_N, beta, epsilon):
    batch = batch_of(token_N, ones(), sequence_N=SEQUENCE_N, reference_P2=sequence_logprobs(logits_NV, token_N))
    loss, logged = preference_loss(logits_NV, batch, LossSettings(beta=beta, label_smoothing=epsilon), PLAIN)
    assert loss.item() == pytest.approx(2 * math.log(2), rel=1e-5)
    assert logged["margin"] == pytest.approx(0, abs=1e-4)


def test_preference_is_equations_9_and_12(logits_NV, token_N):
    reference_P2 = torch.tensor([[-3.0, -2.0], [-4.0, -1.5]], dtype=torch.float64)
    settings = LossSettings(beta=0.7, label_smoothing=0.1)
    loss, logged = preference_loss(
        logits_NV, batch_of(token_N, ones(), sequence_N=SEQUENCE_N, reference_P2=reference_P2), settings, PLAIN
    )
    ratio_P2 = sequence_logprobs(logits_NV, token_N) - reference_P2
    margins = [0.7 * (chosen - rejected) for chosen, rejected in ratio_P2.tolist()]
    expected = sum(0.9 * math.log1p(math.exp(-margin)) + 0.1 * math.log1p(math.exp(margin)) for margin in margins)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    away = -ratio_P2.mean(dim=1).sum().item()
    figures = {"margin": sum(margins), "accuracy": sum(margin > 0 for margin in margins), "reference_kl": away}
    assert logged == pytest.approx(figures, rel=1e-5)
    rise_N = -gradient(loss, logits_NV)[range(N), token_N]
    assert (rise_N[SEQUENCE_N % 2 == 0] > 0).all()  # towards the chosen
    assert (rise_N[SEQUENCE_N % 2 == 1] < 0).all()  # away from the rejected


def test_the_coefficients_grow_over_the_run():
    settings = LossSettings(edl=True, gamma_max=0.5, gamma_warmup_fraction=0.5, kl_weight=0.02, kl_anneal_fraction=0.25)
    run = [Coefficients.at(step, 100, settings) for step in (0, 25, 50, 99)]
    assert [weights.gamma for weights in run] == pytest.approx([0, 0.25, 0.5, 0.5])
    assert [weights.kl for weights in run] == pytest.approx([0, 0.02, 0.02, 0.02])
    assert Coefficients.at(99, 100, dataclasses.replace(settings, edl=False)).kl == 0
