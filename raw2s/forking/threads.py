"""How many threads torch uses in a worker."""

import os

import torch


def use_own_threads() -> None:
    """As many as Ray gives this worker CPUs, or as the user has said: a forked worker had loaded torch before Ray said so."""
    if said := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(said))
