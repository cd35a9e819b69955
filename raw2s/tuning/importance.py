"""How much each knob mattered in a sweep: fANOVA (Hutter, Hoos and Leyton-Brown 2014), as Optuna has it."""

from collections.abc import Sequence

import optuna
from optuna.importance import FanovaImportanceEvaluator

from raw2s.tuning.optuna_space import distributions_of
from raw2s.tuning.space import Knob
from raw2s.tuning.trials import Trial

FEWEST = 6
"""Trials below which a forest says nothing."""


def importance_of(trials: Sequence[Trial], knobs: Sequence[Knob]) -> dict[str, float] | str:
    """By the knobs' keys, largest first, the share of the figures' variance that each explains alone; or why that cannot be told.

    The variance is that of a random forest over the coordinates, uniform in [0, 1] each; what a knob explains together with others
    is in no share. A simplex has the sum of its coordinates' shares. `trials` are those that count.
    """
    figures = [trial.figure or 0.0 for trial in trials]
    if len(trials) < FEWEST:
        return f"The importance of the keys is told from {FEWEST} trials with a figure on; there are {len(trials)}."
    if min(figures) == max(figures):
        return "All trials have the same figure, so no key can be told to matter."
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    space = distributions_of(knobs)
    for trial, figure in zip(trials, figures, strict=True):
        study.add_trial(optuna.create_trial(params=trial.point, distributions=space, value=figure))
    shares = FanovaImportanceEvaluator(seed=0).evaluate(study)
    by_knob = {knob.key: float(sum(shares[name] for name in knob.coordinates)) for knob in knobs}
    return dict(sorted(by_knob.items(), key=lambda item: -item[1]))
