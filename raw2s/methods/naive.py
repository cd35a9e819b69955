"""Naive multi-weak: cross entropy against all teachers' labels, each with its weight (Eq. 2)."""

from raw2s.methods.method import Method, MethodSection, mixed_classes, own_texts, with_loss_weights

NAIVE = Method(
    section=MethodSection,
    title=lambda section: "naive multi-weak",
    label=lambda section: "naive",
    loss="ce",
    weights=with_loss_weights,
    from_text=own_texts,
    from_classes=mixed_classes,
)
