"""The typed config (`tree`, `training`), what entries have of their own (`own`), how it is read and explained (`reading`)."""

from raw2s.config.own import OWN, merged, training_key
from raw2s.config.reading import describe_keys, explain, load_config, parse_config, put_over, read_yaml
from raw2s.config.sweep import OBJECTIVES, SweepConfig
from raw2s.config.training import LoraConfig, Normalize, TrainingConfig
from raw2s.config.tree import Decoding, LabelingConfig, RayConfig, RunConfig, StudentConfig, Tolerance

__all__ = [
    "OBJECTIVES",
    "OWN",
    "Decoding",
    "LabelingConfig",
    "LoraConfig",
    "Normalize",
    "RayConfig",
    "RunConfig",
    "StudentConfig",
    "SweepConfig",
    "Tolerance",
    "TrainingConfig",
    "describe_keys",
    "explain",
    "load_config",
    "merged",
    "parse_config",
    "put_over",
    "read_yaml",
    "training_key",
]
