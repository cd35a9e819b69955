"""Bayesian WeakS-to-Strong: one strong language model learns from several weak, disagreeing labelers, on Ray."""

__version__ = "0.1.0"
