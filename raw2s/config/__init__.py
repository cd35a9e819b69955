"""The typed config (`tree`) and how it is read and explained (`reading`)."""

from raw2s.config.reading import describe_keys, load_config, parse_config, read_yaml
from raw2s.config.tree import Positive, RayConfig, RunConfig, Section, StudentConfig, TrainingConfig

__all__ = [
    "Positive", "RayConfig", "RunConfig", "Section", "StudentConfig", "TrainingConfig",
    "describe_keys", "load_config", "parse_config", "read_yaml",
]  # fmt: skip
