"""ZeRO's layout, in bytes a parameter."""

import pytest

from raw2s.sizing.model import ModelSize
from raw2s.sizing.states import BUCKET, Layout, states

N = 2_000_000_000
SIZE = ModelSize(
    parameters=N, trained=N, body=N, head=0, head_rows=1, layers=1, heads=1, hidden=1, key_value=1, looked_up_rows=1
)  # fmt: skip


def a_parameter(**layout) -> dict[str, float]:
    return {name: value / N for name, value in vars(states(SIZE, Layout(**layout))).items()}


def test_the_papers_bytes_a_parameter():
    """Rajbhandari et al. 2020, Figure 1: 2 + 2 + 12 bytes, of which stage 1 divides the last, 2 the gradients too, 3 all."""
    for stage, kept in ((0, (2, 2, 12)), (1, (2, 2, 12 / 4)), (2, (2, 2 / 4, 12 / 4))):
        found = a_parameter(stage=stage, workers=4)
        assert (found["weights"], found["gradients"], found["optimizer"]) == kept
    found = a_parameter(stage=3, workers=4)
    assert (found["weights"], found["gradients"], found["optimizer"]) == (2 / 4 + 2 * 1e9 / N, 2 / 4, 12 / 4)


def test_a_step_of_stage_1_takes_22_bytes_in_bf16():
    """Weights, gradients, master, moments, and of the gradients a flat copy and one in fp32: 138 GiB of a 7B on one H200."""
    found = a_parameter(stage=1)
    assert found["weights"] + found["gradients"] + found["optimizer"] + found["at_step"] == 2 + 2 + 12 + 2 + 4
    assert found["buckets"] == 2 * BUCKET / N


def test_bf16_states_take_10_bytes_and_12_at_the_step():
    """DeepSpeed copies the gradients flat, and not into a type that they have."""
    found = a_parameter(stage=1, master_bytes=2, moment_bytes=2)
    assert found["weights"] + found["gradients"] + found["optimizer"] == 2 + 2 + 6
    assert found["at_step"] == 2


def test_fp32_keeps_a_second_copy_of_the_weights_in_stages_1_and_2():
    assert a_parameter(stage=0, weight_bytes=4)["optimizer"] == 8
    assert a_parameter(stage=1, weight_bytes=4)["optimizer"] == 12
    assert a_parameter(stage=3, weight_bytes=4)["optimizer"] == 8


def test_offload_takes_the_optimizer_to_the_host():
    found = a_parameter(stage=1, offload="optimizer", workers=2)
    assert (found["weights"], found["gradients"], found["optimizer"]) == (2, 2, 0)
    assert found["host"] == (4 + 4 + 8 + 2) / 2
    here = a_parameter(stage=1, offload="optimizer", on_gpu=False)
    assert here["host"] == 0 and here["optimizer"] == 18, "on a CPU the host is the device"


@pytest.mark.parametrize(("moment_bytes", "master_bytes", "expected"), [(4, 4, 12), (2, 4, 8), (2, 2, 6)])
def test_half_masters_and_moments(moment_bytes, master_bytes, expected):
    assert a_parameter(stage=1, moment_bytes=moment_bytes, master_bytes=master_bytes)["optimizer"] == expected


def test_adapters_alone_are_trained():
    size = ModelSize(**{**vars(SIZE), "trained": N // 100})
    found = states(size, Layout(stage=1))
    assert (found.weights / N, found.gradients / N, found.optimizer / N) == (2, 0.02, 0.12)
