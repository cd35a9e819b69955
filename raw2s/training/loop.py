"""The one training loop, for teachers, ceiling, students and preference: what every worker runs.

`train` reads top to bottom: setup, then steps, with validation and checkpoints on the way. It knows DeepSpeed but not Ray: what
it reports goes through a function. Every rank computes the same plan and sees the same figures; rank 0 speaks for all.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from transformers import PreTrainedTokenizerBase

from raw2s.errors import StageFailed
from raw2s.labels.forms import FORMS
from raw2s.labels.rows import RowKind
from raw2s.models.load import load_tokenizer
from raw2s.training.batching import TokenRow, collate, plan_epoch, steps_in_epoch, tokenize_row
from raw2s.training.checkpoints import require_unchanged, save_engine
from raw2s.training.engine import learning_rate_at, optimizer_step, resume_engine
from raw2s.training.export import export_model
from raw2s.training.job import Job
from raw2s.training.judging import check_room, classified_score, decoded_score
from raw2s.training.loading import load_trainable
from raw2s.training.objectives import Objective, PackedModel, class_accuracy, objective_of, pair_references, token_accuracy
from raw2s.training.progress import ACCURACY, EXPORTED, MODEL, SCORE, STANDARD_ERROR, Progress, read_progress, write_progress
from raw2s.training.scratch import scratch
from raw2s.training.sums import write_sums
from raw2s.training.teacher_weights import learn, teachers_agree, weigh_rows
from raw2s.training.throughput import WORK, Meter

HISTORY_POINTS = 200
"""Points of the training curve that are kept, whatever the number of steps."""

Report = Callable[[dict[str, Any], Path], None]
"""(metrics, this rank's part of a checkpoint, which the function may move); every rank calls it equally often."""
Publish = Callable[[int, int, str, dict[str, float] | None], None]
"""(step, total steps, a note, a point of the training curve or None): what rank 0 shows of a step while training goes on."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What every step needs; `rank` of `workers`."""

    job: Job
    rank: int
    workers: int
    total_steps: int
    engine: deepspeed.DeepSpeedEngine
    tokenizer: PreTrainedTokenizerBase
    rows: list[TokenRow]
    validation: list[TokenRow]
    progress: Progress
    meter: Meter
    report: Report
    publish: Publish


def train(job: Job, rank: int, workers: int, *, checkpoint: Path | None, report: Report, publish: Publish) -> None:
    """Train one model on this rank's share of the rows, from the start or from a checkpoint, to the report of the last step.

    In an initialized process group. Raises StageFailed for a loss or gradient that is NaN or infinite, and where memory runs out;
    CheckpointChanged, on every rank, for a checkpoint that is not as it was written: nothing of it has been loaded.
    """
    if checkpoint is not None:
        require_unchanged(checkpoint)
    training = job.training
    tokenizer = load_tokenizer(job.model)
    how = {"normalize": training.normalize, "words": getattr(job.loss, "words", "runs")}
    rows = read_rows(job.train_file, tokenizer, job.rows, chat=job.chat, **how)
    validation = read_rows(job.validation_file, tokenizer, FORMS[job.form].row_kind, chat=job.chat)
    steps = steps_in_epoch(len(rows), training.batch_size)
    total_steps = training.epochs * steps
    progress = read_progress(checkpoint)
    if progress.step == total_steps:
        return  # cut off after its last report, before the driver took notice
    model = PackedModel(load_trainable(job, workers))
    check_room(job, tokenizer, model.model.config)
    engine = resume_engine(model, training, workers, checkpoint=checkpoint, workers_before=progress.workers)
    progress.go_on_with(workers)
    if job.learned is not None and not progress.weights:
        progress.weights = list(job.learned.start)
    meter = Meter(model, engine.device, workers)
    run = Run(
        job=job, rank=rank, workers=workers, total_steps=total_steps, engine=engine, tokenizer=tokenizer, rows=rows,
        validation=validation, progress=progress, meter=meter, report=report, publish=publish,
    )  # fmt: skip
    if job.rows == "pair":
        if progress.step == 0:
            progress.references = _references(run)
        rows[:] = [replace(row, reference=tuple(pair)) for row, pair in zip(rows, progress.references, strict=True)]
    plan: list[tuple[list[int], list[list[int]]]] = []
    for step in range(progress.step, total_steps):
        epoch, index = divmod(step, steps)
        plan = plan or _plan(run, epoch)
        chosen, shares = plan[index]
        try:
            point = _step(run, step, chosen, shares)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise StageFailed(_out_of_memory(job, step + 1, [rows[i].length for i in chosen])) from error
        _require_numbers(point, ("loss", "gradient_norm"), [rows[i].id for i in chosen])
        progress.step = step + 1
        end_of_epoch, last = index == steps - 1, progress.step == total_steps
        _log(run, point, keep=last or progress.step % max(1, total_steps // HISTORY_POINTS) == 0)
        scores = {}
        better = False
        if end_of_epoch:
            plan = []
            if training.keep == "best":
                scores = _validate(run)
                _require_numbers({"step": progress.step, **scores}, ("validation_loss",), [row.id for row in validation[:8]])
                _log(run, {"step": progress.step, **scores}, keep=True)
                merit = scores[SCORE] if training.judge == "score" else -scores["validation_loss"]
                better = merit > progress.best
                progress.best = max(progress.best, merit)
        if last or scores or (training.checkpoint_every and progress.step % training.checkpoint_every == 0):
            _checkpoint(run, epoch + 1, scores, export=better or (last and training.keep == "last"), resumable=not last)
    engine.destroy()


def read_rows(file: str, tokenizer: PreTrainedTokenizerBase, kind: RowKind, **how: Any) -> list[TokenRow]:
    """`how`: the options of `tokenize_row`."""
    with Path(file).open(encoding="utf-8") as lines:
        return [tokenize_row(json.loads(line), tokenizer, kind, **how) for line in lines]


def _plan(run: Run, epoch: int) -> list[tuple[list[int], list[list[int]]]]:
    """The steps of an epoch, as `plan_epoch` gives them."""
    return list(plan_epoch(
        [row.length for row in run.rows], batch_size=run.job.training.batch_size, workers=run.workers, rank=run.rank,
        micro_batches=run.engine.gradient_accumulation_steps(), seed=run.job.seed * 100_003 + epoch,
    ))  # fmt: skip


@torch.no_grad()
def _references(run: Run) -> list[list[float]]:
    """log P of every pair's texts, in the order of the rows, under the model as it is now, without dropout; all ranks must call.

    In the micro-batches of the first epoch: then policy and reference are the same numbers at the first step, in any precision.
    """
    run.engine.eval()
    found_R2 = torch.zeros(len(run.rows), 2, dtype=torch.float64, device=run.engine.device)
    for _, shares in _plan(run, 0):
        for share in shares:
            _, logged = _forward(run, run.rows, share, pair_references)
            if share:
                found_R2[share] = logged["reference_P2"].double()
    if run.workers > 1:
        dist.all_reduce(found_R2)  # every row is one rank's
    references: list[list[float]] = found_R2.tolist()
    return references


def _step(run: Run, step: int, chosen: list[int], shares: list[list[int]]) -> dict[str, float]:
    """One optimizer step on all ranks; what it gives is of all their rows.

    DeepSpeed averages over workers and micro-batches; the loss wanted is the sum over all rows divided by the step's
    total, so each micro-batch's sum is scaled back up by their number.
    """
    job, engine = run.job, run.engine
    torch.manual_seed((job.seed * 1_000_003 + step) * run.workers + run.rank)  # dropout, the same after a checkpoint
    learning_rate = job.training.learning_rate * learning_rate_at(step, run.total_steps, job.training)
    resting = job.learned is not None and job.learned.resting(step, run.total_steps)
    if resting:
        chosen, *shares = ([i for i in part if teachers_agree(run.rows[i])] for part in (chosen, *shares))
    if job.learned is not None:
        weigh_rows(run.rows, chosen, run.progress.weights)
    divisor = sum(run.rows[i].total for i in chosen) or 1.0
    objective, at = objective_of(job, step, run.total_steps)
    engine.train()
    sums: dict[str, torch.Tensor] = {}
    norm = 0.0
    for share in shares:
        loss, logged = _forward(run, run.rows, share, objective)
        engine.backward(loss * (run.workers * len(shares) / divisor))
        norm = optimizer_step(engine, learning_rate)
        sums = {key: sums.get(key, 0.0) + value for key, value in logged.items()}
    totals = _over_ranks(run, sums)
    run.meter.add({key: totals.pop(key) for key in WORK})
    learned: dict[str, float] = {}
    if job.learned is not None:
        run.progress.weights, learned = learn(job.learned, run.progress.weights, totals, resting=resting)
    means = {key: value / divisor for key, value in totals.items()}
    return {
        "step": step + 1,
        **at,
        "learning_rate": learning_rate,
        "gradient_norm": norm,
        **means,
        **learned,
    }


def _forward(
    run: Run, rows: list[TokenRow], share: list[int], objective: Objective
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The summed loss of some rows, and what is logged: the loss too, the objective's own figures and the work (`WORK`).

    Of no rows: another row's forward pass and zeros, for all ranks make the same passes and log the same figures.
    """
    taken = [rows[i] for i in share] or rows[:1]
    packed: PackedModel = run.engine.module
    batch = collate(taken, run.tokenizer, packed.hidden_size, packed.layout).to(run.engine.device)
    loss, logged = run.engine(batch, objective)
    work = (batch.rows.tokens, batch.rows.input_ids_RT.numel(), len(batch.predictor_N))
    logged = {"loss": loss.detach(), **logged} | {
        key: torch.tensor(float(count), device=loss.device) for key, count in zip(WORK, work, strict=True)
    }
    if share:
        return loss, logged
    return loss * 0.0, {key: torch.zeros_like(value) for key, value in logged.items()}


def _over_ranks(run: Run, sums: dict[str, torch.Tensor]) -> dict[str, float]:
    """Every figure summed over the ranks, in one collective and one wait for the device."""
    stacked = torch.stack([value.double() for value in sums.values()])
    if run.workers > 1:
        dist.all_reduce(stacked)
    return dict(zip(sums, stacked.tolist(), strict=True))


@torch.no_grad()
def _validate(run: Run) -> dict[str, float]:
    """Cross entropy and share of first choices on ground truth, per target token or per row, and the score where that judges.

    The same on every rank.
    """
    run.engine.eval()
    job, device = run.job, run.engine.device
    objective = class_accuracy if job.form == "classes" else token_accuracy
    plan = plan_epoch(
        [row.length for row in run.validation], batch_size=16 * job.training.batch_size, micro_batches=1,
        workers=run.workers, rank=run.rank, seed=None,
    )  # fmt: skip
    sums: dict[str, torch.Tensor] = {}
    logits_RK = torch.zeros(len(run.validation), len(job.classes), device=device)
    for _, (share,) in plan:
        _, logged = _forward(run, run.validation, share, objective)
        if job.form == "classes":
            logits_PK = logged.pop("logits_PK")
            logits_RK[share] = logits_PK[: len(share)]
        sums = {key: sums.get(key, 0.0) + value for key, value in logged.items()}
    totals = _over_ranks(run, sums)
    accuracy = totals["correct"] / totals["targets"]
    scores = {"validation_loss": totals["loss"] / totals["targets"], ACCURACY: accuracy}
    if job.form == "classes":
        scores[ACCURACY + STANDARD_ERROR] = math.sqrt(accuracy * (1 - accuracy) / totals["targets"])
    if job.judge is None:
        return scores
    if job.form == "text":
        return scores | decoded_score(job, run.engine.module.model, run.tokenizer, rank=run.rank, workers=run.workers)
    if run.workers > 1:
        dist.all_reduce(logits_RK)  # every row is one rank's
    return scores | classified_score(job, logits_RK)


def _log(run: Run, point: dict[str, float], *, keep: bool) -> None:
    """A step's point to whoever watches; to the curve too where it is its turn."""
    if keep:
        run.progress.history.append(point)
    if run.rank == 0:
        note = f"loss {point['loss']:.3f}" if "loss" in point else ""
        run.publish(int(point["step"]), run.total_steps, note, {**point, **run.meter.read()} if keep else None)


def _checkpoint(run: Run, epoch: int, scores: dict[str, float], *, export: bool, resumable: bool) -> None:
    """Report the run's progress, with the engine's shards if it is to go on from here, and the model if it is to be kept."""
    folder = scratch("checkpoint")
    if resumable:
        save_engine(run.engine, folder)
    if run.rank == 0:
        write_progress(folder, run.progress)
    write_sums(folder, rank=run.rank, workers=run.workers)
    if export:
        export_model(run.engine, run.tokenizer, run.job, rank=run.rank, folder=folder / MODEL)
    step = run.progress.step
    metrics = {"step": step, "epoch": epoch, EXPORTED: step if export else 0, **scores, "tokens_per_second": run.meter.mean()}
    run.report(metrics, folder)


def _require_numbers(point: dict[str, float], names: Sequence[str], ids: list[int]) -> None:
    """Raise StageFailed for a loss or gradient norm that is NaN or infinite, which every rank sees at the same step."""
    wrong = [name for name in names if not math.isfinite(point[name])]
    if wrong:
        raise StageFailed(
            f"the {wrong[0].replace('_', ' ')} is {point[wrong[0]]} in step {point['step']} (rows {', '.join(map(str, ids))}); "
            "lower the learning rate, set logit_clamp or kl_clamp for EDL, or look at those rows"
        )


def _out_of_memory(job: Job, step: int, lengths: list[int]) -> str:
    return (
        f"memory ran out in step {step}, on {len(lengths)} rows of {sum(lengths)} tokens over all workers; lower micro_batch_size "
        f"({job.training.micro_batch_size}), or set activation_checkpointing: true, a higher zero_stage or offload"
    )
