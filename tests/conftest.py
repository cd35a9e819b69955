"""What the tests share: slow ones first, and one local Ray per module."""

import gc
import logging
from collections.abc import Iterator

import pytest
import ray
from browser import Browser, browser, chromium
from hypothesis import settings
from pyarrow.fs import FileSystem
from ray._private import ray_constants
from torch.nn.attention import flex_attention

from raw2s.config import RayConfig
from raw2s.decoding import block_masks
from raw2s.imports import THRESHOLDS
from raw2s.pipeline.local_ray import ALONE, start_ray
from raw2s.storage import Uri

settings.register_profile("quick", max_examples=40, deadline=None)  # the shared machine's pauses are no failures
settings.load_profile("quick")


collect_ignore = ["cluster"]  # has its own command, make test-cluster
gc.set_threshold(*THRESHOLDS)


def pytest_collection_finish() -> None:
    """All is imported by now."""
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first: at the end the quick ones fill both processes evenly."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="module", autouse=True)
def may_have_nodes() -> Iterator[None]:
    """What an earlier module's local Ray was told does not hold in the next: its head would listen on loopback alone."""
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv(ALONE, raising=False)
        patched.setattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
        yield


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """A local Ray with the pipeline's own settings, stopped when the module is done."""
    start_ray(RayConfig(num_cpus=8))
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A page of a real browser."""
    if chromium() is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="session")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Uri]:
    """A bucket of a server that speaks S3, on this machine alone; copies of what lies there go into a temporary folder."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("RAW2S_CACHE", str(tmp_path_factory.mktemp("copies")))
        system, _ = FileSystem.from_uri("s3://bucket?allow_bucket_creation=true")
        system.create_dir("bucket")
        yield Uri("s3://bucket", "")
    server.stop()


@pytest.fixture
def uncompiled_flex(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlexAttention in plain torch operations, with gradients: compiled it has none on a CPU."""
    monkeypatch.setattr(block_masks, "_compiled_attention", lambda: flex_attention.flex_attention)
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
