"""What each of `test_zero3_head`'s two workers does: train a tiny tied model through `FusedHead` at ZeRO stages 0 and 3."""

from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.utils import safe_get_full_grad
from torch import Tensor, nn

from raw2s.losses import FusedHead, linear_cross_entropy, linear_edl_loss, linear_log_probs

deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # as in raw2s.training.engine

V, H, ROWS, WORKERS, MICRO_BATCHES, STEPS, LEARNING_RATE = 37, 8, 6, 2, 2, 2, 0.1


class TiedModel(nn.Module):
    """Its output embedding is the input embedding, with a bias of its own; the input is also read between two uses of the head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(V, H)
        self.body = nn.Linear(H, H)
        output = nn.Linear(H, V)
        output.weight = self.embedding.weight
        self.head = FusedHead(output)

    def forward(self, read_N: Tensor, token_N: Tensor, prob_N: Tensor) -> Tensor:
        hidden_NH = self.body(self.embedding(read_N)).tanh()
        edl = self.head(linear_edl_loss, hidden_NH, token_N, lambda max_prob_N: prob_N * max_prob_N, kl_weight=1e-2, gamma=0.2)
        ce = self.head(linear_cross_entropy, hidden_NH, token_N, prob_N)
        log_prob_N, _ = self.head(linear_log_probs, hidden_NH, token_N)
        return (edl.loss + ce.loss - log_prob_N.sum()) / ROWS


def batches() -> list[list[tuple[Tensor, Tensor, Tensor]]]:
    """By micro-batch over all steps, then by worker."""
    generator = torch.Generator().manual_seed(1)

    def batch() -> tuple[Tensor, Tensor, Tensor]:
        read_N, token_N = torch.randint(V, (2, ROWS), generator=generator)
        return read_N, token_N, torch.rand(ROWS, generator=generator)

    return [[batch() for _ in range(WORKERS)] for _ in range(STEPS * MICRO_BATCHES)]


def train(stage: int, rank: int) -> dict[str, Any]:
    model = TiedModel()
    config = {
        "train_micro_batch_size_per_gpu": ROWS,
        "gradient_accumulation_steps": MICRO_BATCHES,
        # Smaller parameters would stay whole on every worker, and nothing would be tested.
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0},
        "gradient_clipping": 0.0,  # 1.0 unless told
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    }
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    losses, grads = [], []
    for i, of_workers in enumerate(batches()):
        if stage == 3:
            assert all(p.numel() == 0 for p in model.parameters()), "every weight is partitioned between its uses"
        loss = engine(*of_workers[rank])
        engine.backward(loss)
        every = [torch.zeros_like(loss) for _ in range(WORKERS)]
        dist.all_gather(every, loss.detach())
        losses.append(torch.stack(every))
        if (i + 1) % MICRO_BATCHES == 0:
            grads.append({name: safe_get_full_grad(p).clone() for name, p in model.named_parameters()})
        engine.step()
    with deepspeed.zero.GatheredParameters(list(model.parameters()), enabled=stage == 3):
        weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    engine.destroy()
    return {"losses": torch.stack(losses), "grads": grads, "weights": weights}


def train_stages(rank: int, folder: Path) -> None:
    """Rank 0 leaves results.pt: per stage the losses of all micro-batches, the gradients before each step, the final weights."""
    results = {stage: train(stage, rank) for stage in (0, 3)}
    if rank == 0:
        torch.save(results, folder / "results.pt")
