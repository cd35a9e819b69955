"""What a model learns from, before it meets a tokenizer: prompts with weighted targets, one JSON line each."""

from typing import Literal, NotRequired, TypedDict

RowKind = Literal["targets", "probabilities", "pair"]
"""What a training row holds beside its prompt: target texts, class probabilities, or a preference pair."""


class TextTarget(TypedDict):
    """One target sequence; the teachers that stand behind it, each with its weight and its word log-probabilities.

    `word_logprobs` is (teachers, words + 1), the end marker last; absent for hard labels and ground truth.
    """

    text: str
    weights: list[float]
    word_logprobs: NotRequired[list[list[float]]]
    teacher: NotRequired[int]
    """Where weights are learned: the one teacher behind it, as a place in the table's lists."""


class TrainingRow(TypedDict):
    """`targets` for text, `probabilities` over the classes, or the pair for preference; see `RowKind`.

    `ref_chosen` and `ref_rejected` are as labeling scored them, for the record: training takes its own, in its own precision.
    """

    id: int
    prompt: str
    targets: NotRequired[list[TextTarget]]
    probabilities: NotRequired[list[float]]
    by_teacher: NotRequired[list[list[float] | None]]
    """Where weights are learned: every teacher's own probabilities; None where it has no label."""
    strength: NotRequired[float]
    """Of a target that is a Dirichlet: the sum of its counts, of which the probabilities are the shares."""
    chosen: NotRequired[str]
    rejected: NotRequired[str]
    ref_chosen: NotRequired[float]
    ref_rejected: NotRequired[float]
    margin: NotRequired[float]
    """Of a pair: the teachers' weighted score of the chosen text less that of the rejected."""
