"""Bayesian WeakS-to-Strong: one strong language model learns from several weak, disagreeing labellers, on Ray."""

__version__ = "0.1.0"
