"""Confidence-weighted preference: a pair that the teachers can hardly tell apart counts for little (CW-PO, Afzali et al. 2026).

arXiv 2603.04968 weighs a pair's loss by 2 (σ(margin) - 1/2) in [0, 1), the margin by which its one weak annotator rewards the chosen
text more; here it is that of the teachers' weighted score (Eq. 10, 11), and the loss is conservative DPO (Eq. 9, 12).
"""

import dataclasses

from raw2s.methods.loss import Outcome, PairTargets
from raw2s.methods.preference import CDPO, PreferenceSection, pair_losses


class ConfidencePreferenceSection(PreferenceSection):
    name: str = "cw_cdpo"


def _over_pairs(targets: PairTargets, section: ConfidencePreferenceSection) -> Outcome:
    """`pair_weight` is the summed weight: near 0, the teachers tell few pairs apart."""
    loss_P, logged = pair_losses(targets, section)
    weight_P = 2 * (targets.teacher_margin_P.sigmoid() - 0.5)
    return (weight_P * loss_P).sum(), logged | {"pair_weight": weight_P.sum()}


CW_CDPO = dataclasses.replace(
    CDPO,
    section=ConfidencePreferenceSection,
    title=lambda section: "CW-cDPO",
    card=lambda section: f"{CDPO.card(section)}, pairs weighted by the teachers' confidence",
    over_pairs=_over_pairs,
)
