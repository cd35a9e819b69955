"""A beam step's kernels in Triton against torch in float64: by Triton's interpreter on a CPU (`make triton`), or on a GPU (`-m gpu`)."""

import os

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("triton", reason="Triton is not installed: make triton")
from raw2s.decoding.cuda import steps

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not CUDA and os.environ.get("TRITON_INTERPRET") != "1", reason="no GPU, and no interpreter: make triton"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]
NEVER = float("-inf")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks of 16 columns, the mask looked through in several pieces."""
    monkeypatch.setattr(steps, "SCAN", 32)
    monkeypatch.setattr(steps, "BLOCK_BYTES", 0)


def drawn(seed, *shape, dtype):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(DEVICE)


def tree_mask(seed, prompts, beams, columns, dtype):
    """Left-padded prompts that all beams see, then columns seen by some; no beam sees the last ones."""
    generator = torch.Generator().manual_seed(seed)
    width = columns // 2
    mask = torch.full((prompts, 1, beams, columns), NEVER)
    for b in range(prompts):
        mask[b, :, :, int(torch.randint(width, (), generator=generator)) : width] = 0.0
        seen = torch.rand(beams, columns // 4, generator=generator) < 0.4
        mask[b, 0, :, width : width + columns // 4].masked_fill_(seen, 0.0)
    return mask.to(dtype).to(DEVICE)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.float16, 2e-3)])
@given(
    seed=st.integers(0, 9), beams=st.sampled_from([1, 2, 5]), groups=st.sampled_from([1, 4, 7]), size=st.sampled_from([8, 64, 80]),
    columns=st.sampled_from([12, 48, 81]), scale=st.sampled_from([0.125, 1.0]),
)  # fmt: skip
@settings(deadline=None, max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_attention_of_a_step(dtype, error, seed, beams, groups, size, columns, scale):
    query = drawn(seed, 2, beams, 2 * groups, size, dtype=dtype).transpose(1, 2)
    keys, values = drawn(seed + 10, 2, 2, 2, columns, size, dtype=dtype)
    mask = tree_mask(seed, 2, beams, columns, dtype)
    found = steps.attend(query, keys, values, mask, scale)
    exact_keys, exact_values = (x.double().repeat_interleave(groups, dim=1) for x in (keys, values))
    weight = (query.double() @ exact_keys.mT * scale + mask.double()).softmax(dim=-1)
    torch.testing.assert_close(found.double(), (weight @ exact_values).transpose(1, 2), rtol=error, atol=error)


def test_what_no_beam_sees_at_the_ends_is_not_read():
    query, mask = drawn(0, 1, 1, 2, 64, dtype=torch.float32), torch.full((1, 1, 2, 96), NEVER, device=DEVICE)
    mask[..., 40:50] = 0.0
    keys, values = drawn(1, 2, 1, 1, 96, 64, dtype=torch.float32)
    found = steps.attend(query, keys, values, mask, 1.0)
    for cache in (keys, values):
        cache[:, :, :32], cache[:, :, 50:] = torch.nan, torch.nan
    assert torch.equal(steps.attend(query, keys, values, mask, 1.0), found)


@pytest.mark.parametrize(("beams", "size"), [(1, 64), (3, 80), (5, 8)])
def test_a_steps_keys_and_values_go_to_its_columns_and_nowhere_else(beams, size):
    keys, values = drawn(0, 2, 2, 3, 32, size, dtype=torch.float32)
    new = drawn(1, 2, beams, 2, 3, size, dtype=torch.float32)  # as one product makes them: their strides are of no cache
    new_key, new_value = new.permute(2, 0, 3, 1, 4)
    column = torch.tensor([17, 4, 30, 2, 9], device=DEVICE)[:beams]
    expected = keys.index_copy(2, column, new_key), values.index_copy(2, column, new_value)
    steps.write(keys, values, column, new_key, new_value)
    assert torch.equal(keys, expected[0]) and torch.equal(values, expected[1])
