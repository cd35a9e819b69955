"""The one training loop, for teachers, ceiling, students and preference: what every Ray Train worker runs.

`train_worker` reads top to bottom: setup, then epochs of steps, then the export. Rank 0 speaks for all.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import deepspeed
import ray.train
import torch
import torch.distributed as dist
import torch.nn.functional as F
from transformers import PreTrainedTokenizerBase

from raw2s.config import TrainingConfig
from raw2s.decoding.heads import require_plain_head
from raw2s.decoding.packing import require_packable
from raw2s.models.load import load_model, load_tokenizer, save_model
from raw2s.training.batching import TokenRow, collate, plan_epoch, steps_in_epoch, tokenize_row
from raw2s.training.job import Job
from raw2s.training.objectives import Coefficients, TargetLogits, class_loss, preference_loss, token_loss
from raw2s.training.rows import Form

HISTORY_POINTS = 200
"""Points of the training curve that are kept, whatever the number of steps."""
# DeepSpeed would compile shared-memory collectives for CPUs at the first start (35 CPU seconds each worker, and a C++ compiler
# must be there); gloo does the same work.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
LOSSES = {"supervised": token_loss, "classification": class_loss, "preference": preference_loss}


def deepspeed_config(training: TrainingConfig) -> dict[str, Any]:
    """The engine's settings; the optimizer and schedule are torch's own and are passed beside it."""
    return {
        "train_micro_batch_size_per_gpu": training.micro_batch_size,
        "gradient_accumulation_steps": training.batch_size // (training.workers * training.micro_batch_size),
        "gradient_clipping": training.max_grad_norm,
        "bf16": {"enabled": training.precision == "bf16"},
        "zero_optimization": {"stage": training.zero_stage},
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }


def learning_rate_at(step: int, total_steps: int, training: TrainingConfig) -> float:
    """The factor on the peak learning rate before optimizer step `step` (from 0)."""
    warmup = training.warmup_fraction * total_steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if training.schedule == "constant":
        return 1.0
    left = 1 - (step - warmup) / max(1.0, total_steps - warmup)
    return left if training.schedule == "linear" else float(0.5 * (1 - torch.cos(torch.tensor(torch.pi * left))))


def train_worker(settings: dict[str, Any]) -> None:
    """Train one model on this worker's share of the rows and report the kept weights to Ray Train."""
    job: Job = settings["job"]
    training = job.training
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    torch.manual_seed(job.seed)
    tokenizer = load_tokenizer(job.model)
    model = load_model(job.model, job.kind, job.classes)
    require_plain_head(model.config)
    require_packable(model)
    rows = _read_rows(job.train_file, tokenizer, job.form)
    validation = _read_rows(job.validation_file, tokenizer, "classification" if job.kind == "classification" else "supervised")
    total_steps = training.epochs * steps_in_epoch(len(rows), training.batch_size)
    engine = _engine(TargetLogits(model), training, total_steps)
    micro_batches = engine.gradient_accumulation_steps()
    history: list[dict[str, float]] = []
    best = float("inf")
    step = 0
    for epoch in range(training.epochs):
        engine.train()
        plan = plan_epoch(
            [row.length for row in rows], batch_size=training.batch_size, micro_batches=micro_batches,
            workers=workers, rank=rank, seed=job.seed * 100_003 + epoch,
        )  # fmt: skip
        for chosen, shares in plan:
            at = Coefficients.at(step, total_steps, job.loss)
            divisor = sum(rows[i].total for i in chosen)
            point = _step(engine, [[rows[i] for i in share] for share in shares], rows[0], divisor, tokenizer, job, at)
            step += 1
            if rank == 0 and (step % max(1, total_steps // HISTORY_POINTS) == 0 or step == total_steps):
                history.append({"step": step, "gamma": at.gamma, "kl_weight": at.kl, **point})
            if rank == 0 and job.progress is not None:
                job.progress.update.remote(job.name, step, total_steps, f"loss {point['loss']:.3f}")
        last = epoch == training.epochs - 1
        if training.keep == "best":
            loss, accuracy = _validate(engine, validation, tokenizer, training, job, rank, workers)
            scores = {"validation_loss": loss, "validation_accuracy": accuracy}
            history.append({"step": step, **scores})
            _report({"epoch": epoch, **scores, "history": history}, loss < best, engine, tokenizer, rank)
            best = min(best, loss)
        elif last:
            _report({"epoch": epoch, "history": history}, True, engine, tokenizer, rank)


def _read_rows(file: str, tokenizer: PreTrainedTokenizerBase, form: Form) -> list[TokenRow]:
    with Path(file).open(encoding="utf-8") as lines:
        return [tokenize_row(json.loads(line), tokenizer, form) for line in lines]


def _engine(model: TargetLogits, training: TrainingConfig, total_steps: int) -> deepspeed.DeepSpeedEngine:
    optimizer_type = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[training.optimizer]
    optimizer = optimizer_type(model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_at(step, total_steps, training))
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, lr_scheduler=schedule, config=deepspeed_config(training))
    return engine


def _step(
    engine: deepspeed.DeepSpeedEngine,
    shares: list[list[TokenRow]],
    filler: TokenRow,
    divisor: float,
    tokenizer: PreTrainedTokenizerBase,
    job: Job,
    at: Coefficients,
) -> dict[str, float]:
    """One optimizer step; what is logged is this rank's part of it.

    DeepSpeed averages over workers and micro-batches; the loss wanted is the sum over all rows divided by the step's
    total, so each micro-batch's sum is scaled back up by their number.
    """
    scale = job.training.workers * len(shares) / divisor
    totals: dict[str, float] = {}
    for share in shares:
        batch = collate(share or [filler], tokenizer, engine.module.hidden_size).to(engine.device)
        loss, logged = LOSSES[job.form](engine(batch), batch, job.loss, at)
        if not share:
            loss = loss * 0.0
        engine.backward(loss * scale)
        engine.step()
        if share:
            part = sum(row.total for row in share)
            for key, value in {"loss": loss.item(), **logged, "rows": part}.items():
                totals[key] = totals.get(key, 0.0) + value
    rows = totals.pop("rows", 0.0)
    point = {key: value / rows for key, value in totals.items()} if rows else {"loss": float("nan")}
    return {**point, "learning_rate": engine.get_lr()[0], "gradient_norm": float(engine.get_global_grad_norm() or 0.0)}


@torch.no_grad()
def _validate(
    engine: deepspeed.DeepSpeedEngine,
    rows: list[TokenRow],
    tokenizer: PreTrainedTokenizerBase,
    training: TrainingConfig,
    job: Job,
    rank: int,
    workers: int,
) -> tuple[float, float]:
    """Cross entropy and arg-max accuracy on ground truth, per target token or per row; the same on every rank."""
    engine.eval()
    totals = torch.zeros(3, dtype=torch.float64, device=engine.device)
    plan = plan_epoch(
        [row.length for row in rows], batch_size=16 * training.batch_size, micro_batches=1, workers=workers, rank=rank, seed=None
    )
    for _, (share,) in plan:
        batch = collate([rows[i] for i in share] or rows[:1], tokenizer, engine.module.hidden_size).to(engine.device)
        logits = engine(batch).float()  # with an empty share too: under ZeRO-3 every rank makes the same forward passes
        target = batch.probabilities_PK.argmax(dim=-1) if job.kind == "classification" else batch.token_N
        if share:
            loss = F.cross_entropy(logits, target, reduction="sum")
            totals += torch.stack([loss, (logits.argmax(dim=-1) == target).sum(), torch.tensor(len(target), device=loss.device)])
    if workers > 1:
        dist.all_reduce(totals)
    loss, correct, count = totals.tolist()
    return loss / count, correct / count


def _report(
    metrics: dict[str, Any], save: bool, engine: deepspeed.DeepSpeedEngine, tokenizer: PreTrainedTokenizerBase, rank: int
) -> None:
    """`ray.train.report` on every rank (it is a barrier); rank 0 brings the weights as a Hugging Face folder."""
    state = _full_state(engine, rank) if save else {}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = None
        if save and rank == 0:
            save_model(engine.module.model, tokenizer, Path(folder), state)
            checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report(metrics, checkpoint=checkpoint)


def _full_state(engine: deepspeed.DeepSpeedEngine, rank: int) -> dict[str, torch.Tensor]:
    """Every weight, whole, on rank 0. All ranks must call: under ZeRO-3 each weight is gathered in turn."""
    model = engine.module.model
    state = {}
    partitioned = engine.zero_optimization_stage() == 3
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, value in model.state_dict(keep_vars=True).items():
        with deepspeed.zero.GatheredParameters([parameters[name]] if name in parameters else [], enabled=partitioned):
            if rank == 0:
                state[name] = value.detach().cpu().clone()
    return state
