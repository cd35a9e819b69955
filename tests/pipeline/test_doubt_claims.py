"""What is said of doubt's worth, and that the same samples with another sign say the opposite."""

import numpy as np
import pytest

from raw2s.pipeline.doubt_claims import Weighed, doubt_claims
from raw2s.pipeline.doubt_figures import AS_IS, BEYOND, SCALED

RNG = np.random.default_rng(0)
NOISE = RNG.normal(0, 0.01, 1000)


def figure(value: float, noise: float = 1.0):
    """With noise of its own beside what all share."""
    return value, value + NOISE + noise * RNG.normal(0, 0.002, 1000)


def weighed(
    auroc: dict[str, float], nll: dict[str, float], *, gain: dict[str, float] | None = None, evidential: bool = False
) -> Weighed:
    return Weighed(
        fields={},
        evidential=evidential,
        auroc={measure: figure(value) for measure, value in auroc.items()},
        gain={measure: figure(value) for measure, value in (gain or {}).items()},
        nll={state: figure(value) for state, value in nll.items()},
    )


@pytest.mark.parametrize(("gain", "verdict"), [(0.05, "as the paper"), (-0.05, "the reverse"), (0.0001, "cannot be told")])
def test_a_measure_is_weighed_against_the_probability_of_the_answer(gain, verdict):
    (claim,) = doubt_claims([("naive", weighed({"probability": 0.8, "vacuity": 0.8 + gain}, {}))])
    assert claim.verdict == verdict and claim.effect == pytest.approx(gain)
    assert claim.statement == "Vacuity finds errors better than the answer's probability: naive"
    assert claim.ci95[0] < gain < claim.ci95[1] and (claim.ci95[0] > 0) == (verdict == "as the paper")


@pytest.mark.parametrize(("more", "verdict"), [(0.02, "as the paper"), (-0.02, "the reverse"), (0.0001, "cannot be told")])
def test_so_is_abstaining_by_it(more, verdict):
    (claim,) = doubt_claims([("naive", weighed({}, {}, gain={"probability": 0.1, "seed_disagreement": 0.1 + more}))])
    assert claim.verdict == verdict and claim.effect == pytest.approx(more)
    assert claim.statement == "Seed disagreement is better to abstain by than the answer's probability: naive"


@pytest.mark.parametrize(("nll", "verdict"), [(0.7, "as the paper"), (0.9, "the reverse"), (0.8, "cannot be told")])
def test_an_evidential_student_is_weighed_against_a_temperature(nll, verdict):
    """Less NLL is better; cross entropy as it is is not what it must beat."""
    plain = weighed({}, {AS_IS: 1.5, SCALED: 0.8})
    (claim,) = doubt_claims([("naive", plain), ("Bayesian", weighed({}, {AS_IS: nll}, evidential=True))])
    assert claim.verdict == verdict and claim.effect == pytest.approx(0.8 - nll)
    assert claim.statement == "Less NLL: Bayesian, as it is, than naive, after a temperature"


def test_texts_have_no_temperature_and_students_of_cross_entropy_alone_no_opponent():
    text = [("naive", weighed({}, {BEYOND: 0.2})), ("Bayesian", weighed({}, {BEYOND: 0.1}, evidential=True))]
    assert [claim.statement for claim in doubt_claims(text)] == [
        "Less NLL: Bayesian, beyond its error rate's entropy, than naive, beyond its error rate's entropy"
    ]
    assert doubt_claims(text[:1]) == doubt_claims([]) == []


def test_all_are_corrected_together():
    alone = doubt_claims([("naive", weighed({"probability": 0.8, "entropy": 0.8001}, {}))])
    both = doubt_claims([("naive", weighed({"probability": 0.8, "entropy": 0.8001, "vacuity": 0.8001}, {}))])
    assert alone[0].p_holm == alone[0].p and all(claim.p_holm >= claim.p for claim in both)
