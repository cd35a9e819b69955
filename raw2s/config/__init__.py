"""The typed config (`tree`, `training`) and how it is read and explained (`reading`)."""

from raw2s.config.reading import describe_keys, load_config, parse_config, read_yaml
from raw2s.section import Positive, Section
from raw2s.config.training import LoraConfig, TrainingConfig
from raw2s.config.tree import RayConfig, RunConfig, StudentConfig

__all__ = [
    "LoraConfig", "Positive", "RayConfig", "RunConfig", "Section", "StudentConfig", "TrainingConfig",
    "describe_keys", "load_config", "parse_config", "read_yaml",
]  # fmt: skip
