"""Crowd methods as baselines: the teachers' votes combined without a look at what was voted on (crowd-kit; classes only)."""

from raw2s.labels.crowd import CrowdMethod
from raw2s.methods.method import GivenWeights, Method, MethodSection, mixed_classes


def _crowd(name: CrowdMethod, title: str, about: str) -> Method:
    def weights(section: MethodSection, given: GivenWeights) -> dict[str, float]:
        return {name: 1.0}

    return Method(
        section=MethodSection,
        title=lambda section: title,
        label=lambda section: name,
        loss="ce",
        weights=weights,
        from_text=None,
        from_classes=mixed_classes,
        crowd=name,
        about=f"{about} (crowd-kit; classes only).",
    )


MAJORITY = _crowd("majority", "majority vote", "Majority vote: the shares of the teachers' votes")
DAWID_SKENE = _crowd("dawid_skene", "Dawid-Skene", "Dawid-Skene: votes, by which classes each teacher confuses with which")
MACE = _crowd("mace", "MACE", "MACE: votes, by how often each teacher knows, and else guesses by habit")
