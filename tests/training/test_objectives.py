import math

import pytest
import torch
import torch.nn.functional as F

from raw2s.config import TrainingConfig
from raw2s.decoding.packing import PackedRows
from raw2s.losses import FusedHead
from raw2s.methods.cross_entropy import CrossEntropySection
from raw2s.methods.cw_preference import ConfidencePreferenceSection
from raw2s.methods.evidential import EvidentialSection
from raw2s.methods.learned import LearnedWeights
from raw2s.methods.preference import PreferenceSection
from raw2s.methods.reverse import ReverseSection
from raw2s.training.batching import Batch
from raw2s.training.job import Job
from raw2s.training.objectives import objective_of

N, V, W = 6, 18, 4  # target tokens, vocabulary, words
WORD_N = torch.tensor([0, 0, 1, 2, 2, 3])
WEIGHTS = torch.tensor([0.6, 0.3], dtype=torch.float64)
CE, SMOOTHED, EDL = CrossEntropySection(), CrossEntropySection(label_smoothing=0.2), EvidentialSection()
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
    empty = {"probabilities_PK": nothing, "reference_P2": nothing, "margin_P": nothing}
    return Batch(**unused | empty | fields, token_N=token_N, weight_IN=weight_IN, word_N=word_N, word_logprob_IW=word_logprob_IW)


def job_of(section, rows, learned=None) -> Job:
    """As much of a job as an objective reads."""
    return Job(
        name="test", model="", task="", form="text", classes=(), rows=rows, train_file="", validation_file="",
        training=TrainingConfig(), loss=section, seed=0, learned=learned,
    )  # fmt: skip


def on_logits(rows, head):
    """The objective of a model whose hidden states are its logits, at the last step of a run, where coefficients are whole."""

    def run(logits, batch, section, *, learned=None, **coefficients):
        named = {{"gamma": "gamma_max", "kl": "kl_weight"}[key]: value for key, value in coefficients.items()}
        section = section.model_copy(update={key: value for key, value in named.items() if key in type(section).model_fields})
        objective, _ = objective_of(job_of(section, rows, learned), 1, 1)
        loss, logged = objective(head(logits.dtype), logits, batch)
        return loss, {name: value.item() for name, value in logged.items()}

    return run


def identity(dtype) -> FusedHead:
    head = torch.nn.Linear(V, V, bias=False, dtype=dtype)
    torch.nn.init.eye_(head.weight)
    return FusedHead(head.requires_grad_(False))


token_loss = on_logits("targets", identity)
preference_loss = on_logits("pair", identity)
class_loss = on_logits("probabilities", lambda _: torch.nn.Identity())


def ones(count: int = N) -> torch.Tensor:
    return torch.ones(1, count, dtype=torch.float64)


def gradient(loss, logits) -> torch.Tensor:
    return torch.autograd.grad(loss, logits)[0]


def one_hot(index_N, classes: int = V) -> torch.Tensor:
    return F.one_hot(index_N, classes).double()


@pytest.mark.parametrize("gamma", [0.0, 0.3])
@pytest.mark.parametrize("bridge", ["log", "eq8", "equal"])
@pytest.mark.parametrize("settings", [CE, SMOOTHED, EDL], ids=["ce", "smoothed", "edl"])
def test_teachers_of_one_sequence_in_one_row_lose_what_they_lose_apart(
    logits_NV, token_N, word_logprob_IW, settings, bridge, gamma
):
    settings = settings.model_copy(update={"bridge": bridge})
    coefficients = {"gamma": gamma, "kl": 0.02}
    merged = batch_of(token_N, WEIGHTS[:, None].expand(2, N), word_logprob_IW=word_logprob_IW)
    apart = batch_of(
        token_N.repeat(2), WEIGHTS.repeat_interleave(N)[None], torch.cat([WORD_N, WORD_N + W]), word_logprob_IW.reshape(1, 2 * W)
    )
    together, logged = token_loss(logits_NV, merged, settings, **coefficients)
    separate, logged_apart = token_loss(logits_NV.repeat(2, 1), apart, settings, **coefficients)
    torch.testing.assert_close(together, separate)
    torch.testing.assert_close(gradient(together, logits_NV), gradient(separate, logits_NV))
    assert logged == pytest.approx(logged_apart)


@pytest.mark.parametrize("settings", [CE, EDL], ids=["ce", "edl"])
def test_a_loss_is_a_sum_over_tokens_by_weight(logits_NV, token_N, settings):
    weight_IN = torch.arange(1.0, N + 1, dtype=torch.float64)[None]
    coefficients = {"gamma": 0.2, "kl": 0.1}
    whole, _ = token_loss(logits_NV, batch_of(token_N, weight_IN), settings, **coefficients)
    parts = [
        token_loss(logits_NV[n : n + 1], batch_of(token_N[n : n + 1], ones(1)), settings, **coefficients)[0] for n in range(N)
    ]
    torch.testing.assert_close(whole, sum((n + 1) * part for n, part in enumerate(parts)))


def test_cross_entropy_of_hard_labels(logits_NV, token_N):
    loss, logged = token_loss(logits_NV, batch_of(token_N, ones()), CE)
    probability_NV = logits_NV.exp() / logits_NV.exp().sum(dim=1, keepdim=True)
    torch.testing.assert_close(loss, -probability_NV[range(N), token_N].log().sum())
    assert logged == {}


def test_smoothed_labels_are_torchs_of_tokens_and_of_classes(logits_NV, token_N):
    """The two ways to a loss: of tokens through the output head."""
    expected = F.cross_entropy(logits_NV, token_N, label_smoothing=SMOOTHED.label_smoothing, reduction="sum")
    classes = batch_of(token_N, ones(), probabilities_PK=one_hot(token_N))
    for loss, _ in (token_loss(logits_NV, batch_of(token_N, ones()), SMOOTHED), class_loss(logits_NV, classes, SMOOTHED)):
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(gradient(loss, logits_NV), torch.autograd.grad(expected, logits_NV, retain_graph=True)[0])


@pytest.mark.parametrize("evidence", EVIDENCE)
def test_edl_without_its_regulariser_is_its_likelihood(logits_NV, token_N, evidence):
    loss, logged = token_loss(logits_NV, batch_of(token_N, ones()), EvidentialSection(evidence=evidence), kl=0.0)
    function = {"exp": torch.exp, "softplus": F.softplus, "relu": F.relu}[evidence]
    alpha_NV = function(logits_NV) + 1
    torch.testing.assert_close(loss, (alpha_NV.sum(dim=1).log() - alpha_NV[range(N), token_N].log()).sum())
    assert logged == {"nll": pytest.approx(loss.item())}


@pytest.mark.parametrize("form", ["expected", "soft"])
def test_edl_adds_its_regulariser_by_weight(logits_NV, token_N, word_logprob_IW, form):
    settings = EvidentialSection(form=form)
    batch = batch_of(token_N, WEIGHTS[:, None].expand(2, N), word_logprob_IW=word_logprob_IW)
    likelihood, _ = token_loss(logits_NV, batch, settings, kl=0.0)
    loss, logged = token_loss(logits_NV, batch, settings, gamma=0.0, kl=0.25)
    assert logged["kl"] > 0
    assert logged["nll"] == pytest.approx(likelihood.item())
    assert loss.item() == pytest.approx(logged["nll"] + 0.25 * logged["kl"])


@pytest.mark.parametrize("settings", [CE, EDL, EvidentialSection(form="soft")], ids=["ce", "edl", "edl_soft"])
def test_hard_labels_are_soft_ones_of_probability_one(logits_NV, token_N, settings):
    coefficients = {"gamma": 0.2, "kl": 0.1}
    certain = batch_of(token_N, WEIGHTS[:, None].expand(2, N), word_logprob_IW=torch.zeros(2, W, dtype=torch.float64))
    hard = batch_of(token_N, WEIGHTS[:, None].expand(2, N))
    soft_loss, _ = token_loss(logits_NV, certain, settings, **coefficients)
    hard_loss, _ = token_loss(logits_NV, hard, settings, **coefficients)
    torch.testing.assert_close(soft_loss, hard_loss)
    torch.testing.assert_close(gradient(soft_loss, logits_NV), gradient(hard_loss, logits_NV))


def test_soft_cross_entropy_pulls_towards_the_teachers_probability(logits_NV, token_N):
    """Its gradient at the target is p_s - P, and the words' probability P(W) is shared by the bridge."""
    word_logprob_IW = torch.tensor([[math.log(0.25), math.log(0.5), math.log(0.36), math.log(0.9)]], dtype=torch.float64)
    settings = CrossEntropySection(bridge="equal")
    loss, _ = token_loss(logits_NV, batch_of(token_N, ones(), word_logprob_IW=word_logprob_IW), settings)
    expected_N = torch.tensor([0.5, 0.5, 0.5, 0.6, 0.6, 0.9], dtype=torch.float64)
    student_N = logits_NV.softmax(dim=1)[range(N), token_N]
    torch.testing.assert_close(gradient(loss, logits_NV)[range(N), token_N], (student_N - expected_N).detach())


def test_a_teacher_without_weight_has_no_say(logits_NV, token_N, word_logprob_IW):
    coefficients = {"gamma": 0.1, "kl": 0.1}
    alone = batch_of(token_N, ones(), word_logprob_IW=word_logprob_IW[:1])
    mute = batch_of(token_N, torch.cat([ones(), 0 * ones()]), word_logprob_IW=word_logprob_IW)
    for settings in (CE, EDL):
        torch.testing.assert_close(
            token_loss(logits_NV, mute, settings, **coefficients)[0], token_loss(logits_NV, alone, settings, **coefficients)[0]
        )


@pytest.mark.parametrize("settings", [CE, SMOOTHED, EDL], ids=["ce", "smoothed", "edl"])
@pytest.mark.parametrize("kl", [0.0, 0.1])
def test_gamma_mixes_in_the_loss_on_the_students_own_prediction(logits_NV, token_N, word_logprob_IW, settings, kl):
    taught = batch_of(token_N, ones(), word_logprob_IW=word_logprob_IW[:1])
    own = batch_of(logits_NV.argmax(dim=1), ones())
    teachers, _ = token_loss(logits_NV, taught, settings, gamma=0.0, kl=kl)
    student, _ = token_loss(logits_NV, own, settings, gamma=0.0, kl=kl)
    mixed, _ = token_loss(logits_NV, taught, settings, gamma=0.3, kl=kl)
    torch.testing.assert_close(mixed, 0.7 * teachers + 0.3 * student)
    torch.testing.assert_close(
        gradient(mixed, logits_NV), 0.7 * gradient(teachers, logits_NV) + 0.3 * gradient(student, logits_NV)
    )


@pytest.mark.parametrize("settings", [CE, EDL], ids=["ce", "edl"])
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_bf16_logits_are_summed_over_the_vocabulary_in_fp32(logits_NV, token_N, word_logprob_IW, settings, soft):
    batch = batch_of(token_N, ones().float(), word_logprob_IW=word_logprob_IW[:1].float() if soft else None)
    coefficients = {"gamma": 0.3, "kl": 0.1}
    rounded_NV = logits_NV.detach().bfloat16()
    loss, _ = token_loss(rounded_NV, batch, settings, **coefficients)
    torch.testing.assert_close(loss, token_loss(rounded_NV.float(), batch, settings, **coefficients)[0])


def class_batch(probabilities_PK) -> Batch:
    return batch_of(torch.zeros(0), torch.zeros(0), torch.zeros(0), probabilities_PK=probabilities_PK)


@pytest.mark.parametrize("settings", [CE, SMOOTHED, EDL], ids=["ce", "smoothed", "edl"])
@pytest.mark.parametrize("kl", [0.0, 0.1])
def test_classes_of_several_teachers_lose_their_weighted_sum(logits_NV, settings, kl):
    teachers = torch.rand(2, N, V, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    teachers = teachers / teachers.sum(dim=-1, keepdim=True)
    coefficients = {"gamma": 0.0, "kl": kl}
    mixed, _ = class_loss(logits_NV, class_batch(0.75 * teachers[0] + 0.25 * teachers[1]), settings, **coefficients)
    one, other = (class_loss(logits_NV, class_batch(teacher), settings, **coefficients)[0] for teacher in teachers)
    torch.testing.assert_close(mixed, 0.75 * one + 0.25 * other)


@pytest.mark.parametrize("settings", [CE, SMOOTHED, EDL], ids=["ce", "smoothed", "edl"])
def test_gamma_mixes_in_the_students_own_class(logits_NV, token_N, settings):
    taught, own = class_batch(one_hot(token_N)), class_batch(one_hot(logits_NV.argmax(dim=1)))
    teachers, student = (class_loss(logits_NV, batch, settings, gamma=0.0, kl=0.1)[0] for batch in (taught, own))
    mixed, _ = class_loss(logits_NV, taught, settings, gamma=0.3, kl=0.1)
    torch.testing.assert_close(mixed, 0.7 * teachers + 0.3 * student)


@pytest.mark.parametrize("settings", [CE, SMOOTHED, EDL], ids=["ce", "smoothed", "edl"])
def test_a_class_loses_what_a_token_does(logits_NV, token_N, settings):
    coefficients = {"gamma": 0.1, "kl": 0.1}
    as_class, logged = class_loss(logits_NV, class_batch(one_hot(token_N)), settings, **coefficients)
    as_token, logged_token = token_loss(logits_NV, batch_of(token_N, ones()), settings, **coefficients)
    torch.testing.assert_close(as_class, as_token)
    assert logged == pytest.approx(logged_token)


def test_class_edl_without_its_regulariser_is_its_likelihood(logits_NV, token_N):
    loss, logged = class_loss(logits_NV, class_batch(one_hot(token_N)), EDL, kl=0.0)
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
    loss, logged = preference_loss(logits_NV, batch, PreferenceSection(beta=beta, label_smoothing=epsilon))
    assert loss.item() == pytest.approx(2 * math.log(2), rel=1e-5)
    assert logged["margin"] == pytest.approx(0, abs=1e-4)


def test_preference_is_equations_9_and_12(logits_NV, token_N):
    reference_P2 = torch.tensor([[-3.0, -2.0], [-4.0, -1.5]], dtype=torch.float64)
    settings = PreferenceSection(beta=0.7, label_smoothing=0.1)
    loss, logged = preference_loss(
        logits_NV, batch_of(token_N, ones(), sequence_N=SEQUENCE_N, reference_P2=reference_P2), settings
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
    settings = EvidentialSection(gamma_max=0.5, gamma_warmup_fraction=0.5, kl_weight=0.02, kl_anneal_fraction=0.25)
    run = [objective_of(job_of(settings, "targets"), step, 100)[1] for step in (0, 25, 50, 99)]
    assert [at["gamma"] for at in run] == pytest.approx([0, 0.25, 0.5, 0.5])
    assert [at["kl_weight"] for at in run] == pytest.approx([0, 0.02, 0.02, 0.02])
    assert objective_of(job_of(CrossEntropySection(gamma_max=0.5), "targets"), 99, 100)[1].keys() == {"gamma"}


@pytest.mark.parametrize(
    ("section", "rows"), [(CE, "pair"), (PreferenceSection(), "targets"), (PreferenceSection(), "probabilities")]
)
def test_rows_that_a_loss_has_no_formula_for_are_refused(section, rows):
    with pytest.raises(ValueError, match=f"the loss {section.name} has no formula for {rows}; choose another"):
        objective_of(job_of(section, rows), 0, 1)


def test_unsure_pairs_count_for_little(logits_NV, token_N):
    """CW-PO: 2 (sigma(margin) - 1/2) of each pair's loss, the margin the teachers'."""
    fields = {"sequence_N": SEQUENCE_N, "reference_P2": torch.tensor([[-3.0, -2.0], [-4.0, -1.5]], dtype=torch.float64)}
    batch = batch_of(token_N, ones(), **fields, margin_P=torch.tensor([0.5, 3.0], dtype=torch.float64))
    loss, logged = preference_loss(logits_NV, batch, ConfidencePreferenceSection(beta=0.7, label_smoothing=0.1))
    ratio_P2 = sequence_logprobs(logits_NV, token_N) - fields["reference_P2"]
    weights = [2 * (1 / (1 + math.exp(-margin)) - 0.5) for margin in (0.5, 3.0)]
    margins = [0.7 * (chosen - rejected) for chosen, rejected in ratio_P2.tolist()]
    losses = [0.9 * math.log1p(math.exp(-margin)) + 0.1 * math.log1p(math.exp(margin)) for margin in margins]
    assert loss.item() == pytest.approx(sum(w * one for w, one in zip(weights, losses, strict=True)), rel=1e-5)
    assert logged["pair_weight"] == pytest.approx(sum(weights))
    plain, unweighted = preference_loss(logits_NV, batch, PreferenceSection(beta=0.7, label_smoothing=0.1))
    assert plain.item() == pytest.approx(sum(losses), rel=1e-5) and "pair_weight" not in unweighted


LEARNED = LearnedWeights(teachers=("a", "b", "c"), start=(0.5, 0.3, 0.2), rate=0.1, agreement_fraction=0.0)
TEACHERS = ("teacher_loss/", "teacher_total/")


@pytest.mark.parametrize("settings", [CE, EDL, ReverseSection(name="reverse_kl")], ids=["ce", "edl", "reverse_kl"])
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_the_tokens_of_each_teacher_lose_what_they_lose_alone(logits_NV, token_N, word_logprob_IW, settings, soft):
    """Teacher a wrote words 0 and 3, teacher c 1 and 2, teacher b nothing here."""
    teacher_N = torch.where((WORD_N == 0) | (WORD_N == 3), 0, 2)
    weight_IN = torch.where(teacher_N == 0, 0.7, 0.3).double()[None]
    scores = word_logprob_IW[:1] if soft else None
    batch = batch_of(token_N, weight_IN, word_logprob_IW=scores)
    together, logged = token_loss(logits_NV, batch, settings, gamma=0.1, kl=0.1)
    batch.teacher_N = teacher_N
    apart, logged_apart = token_loss(logits_NV, batch, settings, gamma=0.1, kl=0.1, learned=LEARNED)
    torch.testing.assert_close(apart, together)
    torch.testing.assert_close(gradient(apart, logits_NV), gradient(together, logits_NV))
    of_teachers = {key: value for key, value in logged_apart.items() if key.startswith(TEACHERS)}
    assert {key: value for key, value in logged_apart.items() if key not in of_teachers} == pytest.approx(logged)
    assert [of_teachers[f"teacher_total/{name}"] for name in "abc"] == pytest.approx([3 * 0.7, 0, 3 * 0.3])
    assert of_teachers["teacher_loss/b"] == 0
    for name, place in (("a", 0), ("c", 2)):
        alone = batch_of(token_N, torch.where(teacher_N == place, weight_IN, 1e-30), word_logprob_IW=scores)
        assert of_teachers[f"teacher_loss/{name}"] == pytest.approx(
            token_loss(logits_NV, alone, settings, gamma=0.1, kl=0.1)[0].item()
        )


@pytest.mark.parametrize("settings", [CE, EDL, ReverseSection(name="reverse_ce")], ids=["ce", "edl", "reverse_ce"])
def test_each_teachers_classes_lose_what_they_lose_alone(logits_NV, settings):
    own = torch.rand(N, 3, V, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    own = own / own.sum(dim=-1, keepdim=True)
    own[1:, 1] = 0.0  # teacher b labeled the first row only
    mixed = class_batch(own[:, 0])
    expected, _ = class_loss(logits_NV, mixed, settings, gamma=0.1, kl=0.1)
    mixed.by_teacher_PIK = own
    loss, logged = class_loss(logits_NV, mixed, settings, gamma=0.1, kl=0.1, learned=LEARNED)
    torch.testing.assert_close(loss, expected)
    assert [logged[f"teacher_total/{name}"] for name in "abc"] == [N, 1, N]
    for i, name in enumerate("abc"):
        here = slice(1) if name == "b" else slice(N)
        alone, _ = class_loss(logits_NV[here], class_batch(own[here, i]), settings, gamma=0.1, kl=0.1)
        assert logged[f"teacher_loss/{name}"] == pytest.approx(alone.item())
