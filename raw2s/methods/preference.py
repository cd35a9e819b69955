"""Conservative DPO on pairs that the teachers scored (Eq. 9, 12; section 4.3)."""

from typing import Annotated

from pydantic import Field

from raw2s.losses import cdpo_loss
from raw2s.methods.loss import Loss, LossSection, Outcome, PairTargets, no_schedule


class PreferenceSection(LossSection):
    name: str = "cdpo"
    beta: Annotated[float, Field(gt=0)] = 1.0
    """DPO's beta (Eq. 9); the paper uses 10 with a learning rate of 2e-7."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    """epsilon of cDPO (Eq. 12); 0 is plain DPO."""


def pair_losses(targets: PairTargets, section: PreferenceSection) -> Outcome:
    """Every pair's loss, (P,), and what is logged, summed.

    `reference_kl` is the mean over both of log P_ref - log P: the reference wrote them, so it estimates KL(ref || policy).
    """
    (chosen_P, rejected_P), (ref_chosen_P, ref_rejected_P) = targets.policy_P2.unbind(1), targets.reference_P2.unbind(1)
    loss_P = cdpo_loss(
        chosen_P,
        rejected_P,
        ref_chosen_P,
        ref_rejected_P,
        beta=section.beta,
        label_smoothing=section.label_smoothing,
        reduction="none",
    )
    margin_P = section.beta * ((chosen_P - ref_chosen_P) - (rejected_P - ref_rejected_P)).detach()
    away_P = (targets.reference_P2 - targets.policy_P2.detach()).mean(dim=1)
    logged = {"margin": margin_P.sum(), "accuracy": (margin_P > 0).sum(), "reference_kl": away_P.sum()}
    return loss_P, logged


def _over_pairs(targets: PairTargets, section: PreferenceSection) -> Outcome:
    loss_P, logged = pair_losses(targets, section)
    return loss_P.sum(), logged


CDPO = Loss(
    section=PreferenceSection,
    title=lambda section: "cDPO",
    card=lambda section: f"conservative DPO, beta {section.beta:g}, label smoothing {section.label_smoothing:g}",
    coefficients=no_schedule,
    linear=lambda section: False,
    over_tokens=None,
    over_classes=None,
    over_pairs=_over_pairs,
)
