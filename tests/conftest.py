"""What the slow tests share: one local Ray per module."""

from collections.abc import Iterator

import pytest
import ray

from raw2s.config import RayConfig
from raw2s.pipeline.execute import start_ray


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """A local Ray with the pipeline's own settings, stopped when the module is done."""
    start_ray(RayConfig(num_cpus=8))
    yield
    ray.shutdown()
