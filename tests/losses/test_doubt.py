"""Measures of doubt against SciPy's Dirichlet and plain sums."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import dirichlet, entropy

from raw2s.losses import doubts, evidence_of, log_prediction, mixture_doubts
from raw2s.losses.doubt import _log_excess

EXP = partial(evidence_of, evidence="exp", logit_clamp=None)
logits = st.lists(st.floats(-20, 20), min_size=3, max_size=3).map(lambda row: torch.tensor(row, dtype=torch.float64))


@given(logits)
def test_a_softmax_has_a_choice_and_an_entropy(z):
    found = doubts(z, None)
    p = z.softmax(-1).numpy()
    assert found.keys() == {"choice", "entropy"}
    assert found["choice"].item() == pytest.approx(-np.log(p.max()), abs=1e-12)
    assert found["entropy"].item() == pytest.approx(entropy(p), abs=1e-9)


@given(logits)
def test_the_prediction_of_a_dirichlet_is_its_mean(z):
    alpha = 1 + z.exp().numpy()
    assert log_prediction(z, EXP).exp().numpy() == pytest.approx(dirichlet.mean(alpha), rel=1e-9)
    found = doubts(z, EXP)
    assert found["choice"].item() == pytest.approx(-np.log(dirichlet.mean(alpha).max()), rel=1e-6, abs=1e-12)
    assert found["vacuity"].item() == pytest.approx(3 / alpha.sum())


def test_mutual_information_is_the_mean_entropy_missing_from_the_means_entropy():
    z = torch.tensor([[1.0, 0.0, -2.0], [4.0, -1.0, 3.0]], dtype=torch.float64)
    found = doubts(z, EXP)
    for row, own in zip(z, found["mutual_information"], strict=True):
        drawn = dirichlet.rvs(1 + row.exp().numpy(), size=200_000, random_state=0)
        mean_entropy = entropy(drawn, axis=1).mean()
        assert own.item() == pytest.approx(entropy(drawn.mean(axis=0)) - mean_entropy, abs=2e-3)


@given(logits)
def test_more_of_the_same_evidence_is_less_doubt_about_the_distribution(z):
    less, more = doubts(z, EXP), doubts(z + 2, EXP)
    assert more["vacuity"] <= less["vacuity"]
    assert 0 < less["vacuity"] <= 1
    assert 0 <= less["mutual_information"] <= less["entropy"] + 1e-12


def test_without_evidence_all_is_vacuous():
    found = doubts(torch.full((4,), -torch.inf, dtype=torch.float64), EXP)
    assert found["vacuity"] == 1
    assert found["entropy"].item() == pytest.approx(np.log(4))


def test_a_class_that_cannot_be_has_no_share_in_the_entropy():
    found = doubts(torch.tensor([0.0, 0.0, -torch.inf]), None)
    assert found["entropy"].item() == pytest.approx(np.log(2))


def test_large_strengths_keep_their_mutual_information_in_fp32():
    x = torch.logspace(0, 6, 200, dtype=torch.float64)
    exact = torch.digamma(x + 1) - x.log()
    assert _log_excess(x).numpy() == pytest.approx(exact.numpy(), rel=1e-7, abs=1e-11)
    assert _log_excess(x.float()).numpy() == pytest.approx(exact.numpy(), rel=3e-5)


@given(st.lists(logits, min_size=1, max_size=5))
def test_a_mixture_is_as_uncertain_as_its_mean_and_its_members_disagree_about_what_is_left(members):
    p = torch.stack(members).softmax(-1).numpy()
    total, disagreed = mixture_doubts(z.log_softmax(-1) for z in members)
    assert total.item() == pytest.approx(entropy(p.mean(0)), abs=1e-9)
    assert disagreed.item() == pytest.approx(entropy(p.mean(0)) - entropy(p, axis=1).mean(), abs=1e-9)
    assert 0 <= disagreed <= total + 1e-12
    assert mixture_doubts([members[0].log_softmax(-1)] * 3)[1].item() == pytest.approx(0, abs=1e-12)


def test_members_that_are_sure_of_different_things_disagree_about_everything():
    sure = torch.eye(3, dtype=torch.float64).log()
    assert [value.item() for value in mixture_doubts(sure)] == pytest.approx([np.log(3)] * 2)
