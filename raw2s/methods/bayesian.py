"""Bayesian multi-weak: the evidential loss against all teachers' labels, each with its weight (Eq. 4)."""

from raw2s.methods.method import Method, MethodSection, mixed_classes, own_texts, with_loss_weights

BAYESIAN = Method(
    section=MethodSection,
    title=lambda section: "Bayesian multi-weak",
    label=lambda section: "bayesian",
    loss="edl",
    weights=with_loss_weights,
    from_text=own_texts,
    from_classes=mixed_classes,
)
