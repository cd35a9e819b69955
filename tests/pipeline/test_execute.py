"""How a failure is told: the worker's own error out of what Ray wraps around it."""

from raw2s.pipeline.execute import _cause

RAY_DATA = """ray::Map(BeamActor)() (pid=1, ip=127.0.0.1)
  File "actors.py", line 1, in __call__
ValueError: 300 tokens do not fit; shorten the text

The above exception was the direct cause of the following exception:

ray::Map(BeamActor)() (pid=1, ip=127.0.0.1)
ray.exceptions.UserCodeException: UDF failed to process a data block.
To ignore errors set max_errored_blocks."""


def test_the_workers_error_is_found_in_rays_text():
    assert _cause(RuntimeError(RAY_DATA)) == "ValueError: 300 tokens do not fit; shorten the text"


def test_a_plain_error_is_itself():
    assert _cause(ValueError("no such part\nsecond line")) == "ValueError: no such part"
