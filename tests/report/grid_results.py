"""Made-up results of a grid's size: 24 students, 5 seeds, 3 teachers."""

import random

from test_report import TEACHERS, make_results, student

from raw2s.doubt_results import Doubt
from raw2s.report.examples import ExampleGroup, ShownAnswer, ShownExample
from raw2s.results import Agreement, Difference, StageRecord

SEEDS = [1, 2, 3, 4, 5]
METHODS = [*(f"single:{name}" for name in TEACHERS), "naive", "joint", "bayesian"]
SETTINGS = [(aux, confidence) for aux in (False, True) for confidence in (False, True)]
DOUBT = [
    Doubt(measure=measure, auroc=0.7, auroc_ci95=(0.6, 0.8), aurc=0.2, aurc_ci95=(0.1, 0.3), at_80=0.8, at_80_ci95=(0.7, 0.9), gain_80=0.05, gain_80_ci95=(0.0, 0.1), risk=[k / 60 for k in range(20)])
    for measure in ("vacuity", "entropy", "max_probability")
]  # fmt: skip
STUDENTS = [
    student("naive", 0.35 + 0.01 * i, aux=aux, confidence=confidence, stage=f"student/{i}-{method.replace(':', '-')}").model_copy(
        update={
            "method": method,
            "title": f"{method} (EDL)",
            "pgr_ci95_examples": (0.15, 0.25),
            "doubt": DOUBT,
            "per_seed": [0.35 + 0.01 * (i + s) for s in SEEDS],
        }
    )
    for i, (method, (aux, confidence)) in enumerate((method, pair) for method in METHODS for pair in SETTINGS)
]
STAGES = [*(f"teacher/{name}" for name in TEACHERS), "ceiling", *(own.stage for own in STUDENTS)]


def curves():
    """200 logged steps and 4 validations of every model and seed; of the Bayesian students the terms of EDL too."""
    draw = random.Random(0)

    def points(edl):
        for step in range(1, 201):
            loss = 6 / (1 + step / 20) * draw.lognormvariate(0, 0.3)
            yield {"step": step, "loss": loss} | ({"nll": loss, "kl": 90.0, "gamma": 0.1, "kl_weight": 1e-4} if edl else {})
        yield from ({"step": 50 * k, "validation_loss": 3 / k} for k in range(1, 5))

    return {f"{stage}@{seed}": list(points("bayesian" in stage)) for stage in STAGES for seed in SEEDS}


def grid_results():
    differences = [
        Difference(one=a.stage, other=b.stage, difference=a.score - b.score, ci95=(-0.1, 0.1), p=0.2, p_holm=1, sign_p=0.1, sign_p_holm=1)
        for i, a in enumerate(STUDENTS)
        for b in STUDENTS[:i]
    ]  # fmt: skip
    pairs = [Agreement(stage=one, teacher=f"teacher/{name}", same=0.5, both_wrong=0.25) for one in STAGES for name in TEACHERS]
    names = [f"{kind}{stage}@{seed}" for kind in ("", "test/") for stage in STAGES for seed in SEEDS]
    stages = [StageRecord(name=name, key="0123456789abcdef", cached=name > "t", seconds=100.0) for name in names]
    licences = [f"{name}: cc-by-4.0, as its card says" for name in TEACHERS]
    return make_results(STUDENTS, seeds=SEEDS, differences=differences, agreements=pairs, stages=stages, licences=licences)


def example_groups():
    gold = '{"time": "nine am"}'
    stages = [*STAGES[:4], STAGES[-1]]
    answers = [
        ShownAnswer(stage=stage, text=gold if stage == "ceiling" else '{"time": "nine pm"}', right=stage == "ceiling")
        for stage in stages
    ]
    one = ShownExample(prompt="wake me at nine am " * 4 + "x" * 90, gold=gold, answers=answers)
    return [ExampleGroup(title=f"The rule {k}", count=123, examples=[one] * 3) for k in range(3)]
