"""Joint decoding: the one text that all teachers together find likeliest (section 4.1, Eq. 6). Text only."""

from raw2s.labels.rows import TrainingRow
from raw2s.labels.targets import Labeled, Score, joint_rows
from raw2s.methods.method import GivenWeights, Method, MethodSection


class JointSection(MethodSection):
    score: Score = "mean_logprob"
    """What is weighed and summed over the teachers: mean_logprob, sum_logprob or prob."""


def _rows(labeled: Labeled, section: JointSection) -> list[TrainingRow]:
    return joint_rows(labeled, score=section.score, confidence=section.confidence)


def _weights(section: JointSection, given: GivenWeights) -> dict[str, float]:
    return given.joint


JOINT = Method(
    section=JointSection,
    title=lambda section: "joint decoding",
    label=lambda section: "joint",
    loss="ce",
    weights=_weights,
    from_text=_rows,
    from_classes=None,
)
