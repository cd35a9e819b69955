"""What the tests share: slow ones first, and one local Ray per module."""

import gc
from collections.abc import Iterator

import pytest
import ray
from hypothesis import settings
from torch.nn.attention import flex_attention

from raw2s.config import RayConfig
from raw2s.decoding import block_masks
from raw2s.imports import THRESHOLDS
from raw2s.pipeline.local_ray import start_ray

settings.register_profile("quick", max_examples=40, deadline=None)  # the shared machine's pauses are no failures
settings.load_profile("quick")


gc.set_threshold(*THRESHOLDS)


def pytest_collection_finish() -> None:
    """All is imported by now."""
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first: at the end the quick ones fill both processes evenly."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """A local Ray with the pipeline's own settings, stopped when the module is done."""
    start_ray(RayConfig(num_cpus=8))
    yield
    ray.shutdown()


@pytest.fixture
def uncompiled_flex(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlexAttention in plain torch operations, with gradients: compiled it has none on a CPU."""
    monkeypatch.setattr(block_masks, "_compiled_attention", lambda: flex_attention.flex_attention)
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
