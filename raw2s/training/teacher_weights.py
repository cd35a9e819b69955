"""Rows under the teachers' weights of a step, where these are learned (`raw2s.methods.learned`), and what a step makes of them."""

import dataclasses
from collections.abc import Sequence

from raw2s.methods.learned import LearnedWeights, step_on_simplex
from raw2s.training.batching import TokenRow
from raw2s.training.progress import WEIGHT

LOSS, TOTAL = "teacher_loss/", "teacher_total/"
"""Before a teacher's name: its loss, and what that is a sum over, the weights of tokens or rows."""


def weigh_rows(rows: list[TokenRow], chosen: Sequence[int], weights: Sequence[float]) -> None:
    """Give the chosen rows these weights, in place: a row's own weights are those of the last step that chose it."""
    for i in chosen:
        rows[i] = _weighed(rows[i], weights)


def teachers_agree(row: TokenRow) -> bool:
    """Whether all teachers of a row gave the same text, or hold the same class likeliest."""
    if row.by_teacher:
        return len({max(range(len(own)), key=own.__getitem__) for own in row.by_teacher if own is not None}) == 1
    return len({tuple(sequence.ids) for sequence in row.sequences}) == 1


def learn(
    learned: LearnedWeights, weights: Sequence[float], sums: dict[str, float], *, resting: bool
) -> tuple[list[float], dict[str, float]]:
    """The weights after a step, and what of it is logged: every teacher's mean loss and weight.

    Each teacher's loss and total, over all rows of the step, are taken out of `sums`.
    """
    losses = []
    for name in learned.teachers:
        loss, total = sums.pop(LOSS + name), sums.pop(TOTAL + name)
        losses.append(loss / total if total > 0 else None)
    moved = list(weights) if resting else step_on_simplex(weights, losses, learned.rate)
    point = {LOSS + name: loss for name, loss in zip(learned.teachers, losses, strict=True) if loss is not None}
    return moved, point | {WEIGHT + name: weight for name, weight in zip(learned.teachers, moved, strict=True)}


def _weighed(row: TokenRow, weights: Sequence[float]) -> TokenRow:
    """Each teacher's weight over the sum of those who have a label for the row."""
    if row.by_teacher:
        present = [(weight, own) for weight, own in zip(weights, row.by_teacher, strict=True) if own is not None]
        total = sum(weight for weight, _ in present)
        mixed = [sum(weight * own[k] for weight, own in present) / total for k in range(len(row.probabilities))]
        return dataclasses.replace(row, probabilities=mixed)
    teachers = [sequence.teacher for sequence in row.sequences]
    if None in teachers:
        raise ValueError(f"row {row.id}: learned weights need each teacher's own label; make the rows with per_teacher=True")
    own_weights = [weights[teacher] for teacher in teachers if teacher is not None]
    sequences = [
        dataclasses.replace(sequence, weights=[weight / sum(own_weights)])
        for sequence, weight in zip(row.sequences, own_weights, strict=True)
    ]
    return dataclasses.replace(row, sequences=sequences, total=sum(s.total for s in sequences))
