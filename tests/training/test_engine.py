"""What an engine takes along."""

import subprocess
import sys

import pytest
import torch

MAKE = """
import os, sys
os.environ |= dict(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", DS_ACCELERATOR="cpu")
import torch
from raw2s.config import TrainingConfig
from raw2s.training.engine import make_engine
torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
model = torch.nn.Module()
model.model = torch.nn.Linear(2, 2)
make_engine(model, TrainingConfig(zero_stage=2), 1)
assert torch.compiler.get_default_backend() == "inductor"
assert "deepspeed.runtime.zero.muon.muon_optimizer" in sys.modules, "DeepSpeed no longer asks for it"
assert "torch._inductor.compile_fx" not in sys.modules
"""


@pytest.mark.slow  # a process of its own, with DeepSpeed
@pytest.mark.skipif(not hasattr(torch.compiler, "set_default_backend"), reason="torch below 2.13")
def test_an_engine_loads_no_compiler():
    run = subprocess.run([sys.executable, "-c", MAKE], capture_output=True, text=True, timeout=150)
    assert run.returncode == 0, run.stderr
