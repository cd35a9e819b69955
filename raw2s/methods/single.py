"""One teacher's labels alone: the paper's single-weak rows."""

from raw2s.methods.method import GivenWeights, Method, MethodSection, mixed_classes, own_texts
from raw2s.section import Name


class SingleSection(MethodSection):
    teacher: Name
    """The teacher whose labels are learned."""


def _weights(section: SingleSection, given: GivenWeights) -> dict[str, float]:
    return {name: float(name == section.teacher) for name in given.names}


SINGLE = Method(
    section=SingleSection,
    title=lambda section: f"single teacher {section.teacher}",
    label=lambda section: f"single:{section.teacher}",
    loss="ce",
    weights=_weights,
    from_text=own_texts,
    from_classes=mixed_classes,
)
