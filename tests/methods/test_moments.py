"""The Dirichlet of the teachers' moments, against draws from a known one and against torch's own divergence."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from tiny_runs import tiny_run
from torch.distributions import Dirichlet, kl_divergence

from raw2s.config import parse_config
from raw2s.decoding.packing import token_tree
from raw2s.errors import ConfigError
from raw2s.labels.targets import Labeled
from raw2s.losses import log_prediction
from raw2s.methods.dirichlet import DIRICHLET, DirichletSection, dirichlet_divergence, evidence_of_counts
from raw2s.methods.moments import MomentsSection, _rows, strength_of
from raw2s.pipeline.rules import check_rules
from raw2s.tasks import task_of
from raw2s.training.batching import TokenRow, collate
from raw2s.training.objectives import _class_loss

counts = st.lists(st.floats(0.05, 50), min_size=3, max_size=3).map(lambda row: torch.tensor(row, dtype=torch.float64))
CLASSES = {"name": "slurp_scenario", "n_teacher": 48, "n_student": 24}


@pytest.mark.parametrize("weights", [[1.0] * 4000, [1.0, 3.0] * 2000])
def test_the_strength_that_distributions_were_drawn_with_is_found(weights):
    alpha = torch.tensor([2.0, 5.0, 1.0], dtype=torch.float64)
    drawn = torch.from_numpy(np.random.default_rng(0).dirichlet(alpha.numpy(), size=len(weights)))
    weight_I = torch.tensor(weights, dtype=torch.float64)
    assert strength_of(drawn, weight_I / weight_I.sum()) == pytest.approx(8.0, rel=0.05)


def test_who_agrees_is_infinitely_strong_and_corners_have_no_strength():
    half = torch.tensor([0.5, 0.5], dtype=torch.float64)
    assert strength_of(torch.tensor([[0.7, 0.3], [0.7, 0.3]], dtype=torch.float64), half) == torch.inf
    assert strength_of(torch.eye(2, dtype=torch.float64), half) == 0


@given(counts, counts)
def test_the_divergence_is_torchs(a, b):
    expected = kl_divergence(Dirichlet(a), Dirichlet(b))
    assert dirichlet_divergence(b.log(), a).item() == pytest.approx(expected.item(), rel=1e-6, abs=1e-7)


@given(counts)
def test_it_is_least_at_the_target_itself_with_no_slope(a):
    logits = a.log().requires_grad_()
    loss = dirichlet_divergence(logits, a)
    (slope,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(0, abs=1e-9)
    assert slope.numpy() == pytest.approx(0, abs=1e-9 * a.sum().item() + 1e-9)


def test_the_student_predicts_its_softmax():
    logits = torch.tensor([[1.0, -3.0, 0.5]], dtype=torch.float64)
    assert log_prediction(logits, evidence_of_counts).numpy() == pytest.approx(logits.log_softmax(-1).numpy())


def labeled(*logits):
    table = [{"id": 7, "logits": list(logits)}]
    return Labeled(prompts={7: "x"}, table=table, weights=[0.5, 0.25, 0.25], teachers=["a", "b", "c"])


@pytest.mark.parametrize("third", [[0.0, 2.0, 0.1], None])
def test_a_row_has_the_teachers_mean_and_a_strength_within_its_bounds(third):
    section = MomentsSection(method="moments", loss={"name": "dirichlet"}, min_strength=0.5, max_strength=40)
    given_logits = [[1.0, 0.0, 0.3], [0.2, 1.0, 0.1], third]
    (row,) = _rows(labeled(*given_logits), section)
    present = [(w, softmax(z)) for w, z in zip([0.5, 0.25, 0.25], given_logits, strict=True) if z is not None]
    mean = sum(w * p for w, p in present) / sum(w for w, _ in present)
    assert row["probabilities"] == pytest.approx(mean)
    assert 0.5 < row["strength"] < 40
    assert row.keys() == {"id", "prompt", "probabilities", "strength"}


def test_where_teachers_agree_or_one_stands_alone_the_bound_is_the_strength():
    section = MomentsSection(method="moments", loss={"name": "dirichlet"}, max_strength=40)
    same = [1.0, 0.0, 0.3]
    for given_logits in ([same] * 3, [same, None, None]):
        (row,) = _rows(labeled(*given_logits), section)
        assert row["strength"] == 40


def test_a_class_that_no_teacher_holds_possible_leaves_the_loss_finite():
    logits = torch.zeros(1, 3, requires_grad=True)
    loss, logged = DIRICHLET.over_classes(logits, torch.tensor([[30.0, 0.0, 10.0]]), DirichletSection(), {})
    (slope,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(loss)
    assert torch.isfinite(slope).all()
    assert slope[0, 1] > 0  # its count goes down
    assert logged["strength"] == 40


def test_a_batch_learns_from_the_counts_of_its_own_rows():
    rows = [
        TokenRow(id=i, tree=token_tree([1, 2], []), total=1.0, probabilities=[0.75, 0.25], strength=strength)
        for i, strength in enumerate([4.0, 8.0])
    ]
    batch = collate(rows, SimpleNamespace(pad_token_id=0, eos_token_id=0), 2)
    seen = {}

    def formula(logits, target_PK, section, at):
        seen["target"] = target_PK
        return logits.sum(), {}

    _class_loss(torch.nn.Identity(), torch.zeros(2, 2), batch, formula=formula, section=None, at={})
    assert seen["target"].tolist() == [[3.0, 1.0], [6.0, 2.0]]


@pytest.mark.parametrize("entry", [{"method": "moments", "loss": "ce"}, {"method": "naive", "loss": "dirichlet"}])
def test_counts_go_with_their_own_loss_alone(tmp_path, entry):
    config = parse_config(tiny_run(tmp_path, task=CLASSES, methods=[entry]))
    with pytest.raises(ConfigError, match="give both, or neither"):
        check_rules(config, task_of(config.task))
    own = parse_config(tiny_run(tmp_path, task=CLASSES, methods=[{"method": "moments"}]))
    check_rules(own, task_of(own.task))
