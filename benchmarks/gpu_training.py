"""Training steps of a 1.1 B and a 7 B Llama on one GPU: the dense mask, block masks, compiled layers, fresh and fixed shapes."""

import random
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from gpu_report import SEED, Report, Sizes, made_model, prepare
from torch import Tensor
from torch._dynamo.utils import counters
from transformers import PreTrainedModel

from raw2s.decoding import spread_word_scores
from raw2s.decoding.block_masks import takes_block_masks
from raw2s.decoding.heads import hidden_at, output_head
from raw2s.decoding.packing import Layout, token_tree
from raw2s.losses import FusedHead, linear_cross_entropy, linear_edl_loss, linear_log_probs
from raw2s.training.batching import Batch, TokenRow, TokenSequence, collate

HOPPER_PEAK = 989e12
"""Dense bf16 operations a second of an H100 or H200 SXM, NVIDIA's data sheet."""


def random_row(draw: random.Random, vocabulary: int, prompt: int, targets: Sequence[int]) -> TokenRow:
    """A prompt and its three teachers' targets; a word of the bridge is two pieces, each of log-probability -0.1."""
    ids = [[draw.randrange(vocabulary) for _ in range(length)] for length in (prompt, *targets)]
    sequences = [
        TokenSequence(target, [piece // 2 for piece in range(len(target))], [1 / 3], [[-0.2] * (len(target) // 2 + 1)])
        for target in ids[1:]
    ]
    return TokenRow(id=0, tree=token_tree(ids[0], ids[1:]), total=sum(targets) / 3, sequences=sequences)


def random_rows(sizes: Sizes, draw: random.Random, *, spread: int = 0) -> list[TokenRow]:
    """A step's rows, or up to `spread` more or fewer."""
    return [
        random_row(draw, sizes.step.vocab_size, draw.randint(*sizes.prompt), [draw.randint(*sizes.target) for _ in range(3)])
        for _ in range(sizes.rows + draw.randint(-spread, spread))
    ]


def pack(model: PreTrainedModel, rows: Sequence[TokenRow]) -> Batch:
    """In one row where the model takes block masks, else in rows of whatever shape, as at d5f8c63."""
    layout: Layout = "one_row" if takes_block_masks(model) else "rows"
    return collate(rows, SimpleNamespace(pad_token_id=0), model.config.hidden_size, layout)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """A model in bf16, its head fused with the loss, torch's AdamW; moments in bf16 too."""

    model: PreTrainedModel
    head: FusedHead
    optimizer: torch.optim.Optimizer
    device: torch.device

    @classmethod
    def of(cls, model: PreTrainedModel, device: torch.device) -> "Trainer":
        optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-5, fused=True)
        return cls(model=model, head=FusedHead(output_head(model)), optimizer=optimizer, device=device)

    def packed(self, rows: Sequence[TokenRow]) -> Batch:
        return pack(self.model, rows).to(self.device)

    def loss(self, batch: Batch, rows: Sequence[TokenRow], loss: str) -> Tensor:
        """The mean over weighted target tokens, as the pipeline's students have it: three teachers, the bridge, gamma 0.1."""
        hidden_NH = hidden_at(self.model, batch.rows, batch.predictor_N)
        assert batch.word_logprob_IW is not None
        given = (batch.word_logprob_IW, batch.word_N.expand(len(batch.weight_IN), -1))

        def token_prob(max_prob_N: Tensor) -> Tensor:
            logprob_IN = spread_word_scores(*given, max_prob_N.expand(len(batch.weight_IN), -1), bridge="log")
            return (batch.weight_IN * logprob_IN.exp()).sum(dim=0) / batch.weight_IN.sum(dim=0)

        common = {"row_weight_N": batch.weight_IN.sum(dim=0), "gamma": 0.1}
        if loss == "edl":
            found = self.head(linear_edl_loss, hidden_NH, batch.token_N, token_prob, kl_weight=1e-5, **common)
        else:
            found = self.head(linear_cross_entropy, hidden_NH, batch.token_N, token_prob, **common)
        total: Tensor = found.loss / sum(row.total for row in rows)
        return total

    def flops(self, tokens: int, targets: int) -> float:
        """Six operations a weight and token, the head's at the targets only (Kaplan et al. 2020); none for attention."""
        body = self.model.get_decoder()
        looked_up = sum(module.weight.numel() for module in body.modules() if isinstance(module, torch.nn.Embedding))
        return 6.0 * ((sum(p.numel() for p in body.parameters()) - looked_up) * tokens + self.head.weight.numel() * targets)

    def update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def gradient_norm(self, batch: Batch, rows: Sequence[TokenRow], loss: str) -> tuple[float, float]:
        """The loss, and the norm of its gradient; no step."""
        value = self.loss(batch, rows, loss)
        value.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        self.optimizer.zero_grad()
        return value.item(), norm.item()

    def wait(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def figures(self, seconds: float, work: Sequence[tuple[list[TokenRow], Batch]]) -> dict[str, float]:
        """Of steps on those batches that took `seconds` together."""
        tokens = sum(row.length for rows, _ in work for row in rows)
        cells = sum(batch.rows.input_ids_RT.numel() for _, batch in work)
        targets = sum(len(batch.predictor_N) for _, batch in work)
        on_gpu = self.device.type == "cuda"
        return {
            "ms": 1e3 * seconds / len(work),
            "tokens_per_second": tokens / seconds,
            "filler": 1 - tokens / cells,
            "mfu": self.flops(tokens, targets) / seconds / HOPPER_PEAK if on_gpu else float("nan"),
            "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else float("nan"),
        }


def fixed_steps(trainer: Trainer, rows: list[TokenRow], loss: str, steps: int, accumulate: int = 1) -> dict[str, float]:
    """Steps on one batch, each waited for: the median. `accumulate` forward and backward passes a step."""
    batch = trainer.packed(rows)
    if trainer.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds, losses = [], []
    for _ in range(2 + steps):
        start = trainer.wait()
        for _ in range(accumulate):
            value = trainer.loss(batch, rows, loss) / accumulate
            value.backward()
        trainer.update()
        seconds.append(trainer.wait() - start)
        losses.append(accumulate * value.item())
    median = statistics.median(seconds[2:])
    return trainer.figures(median, [(rows, batch)] * accumulate) | {
        "ms": 1e3 * median, "first_step_ms": 1e3 * seconds[0], "first_loss": losses[0], "last_loss": losses[-1],
    }  # fmt: skip


def graphs() -> int:
    """How many graphs torch's compiler has made in this process."""
    return int(counters["stats"]["unique_graphs"])


def fresh_steps(trainer: Trainer, batches: Iterable[list[TokenRow]], loss: str, *, warm_up: int) -> dict[str, float]:
    """Steps on new rows each, packed as they come and not waited for; figures of all after the first `warm_up`.

    A run makes the graph for any shape when its second shape comes, once: so must the warm-up, in whose batches several do.
    """
    work: list[tuple[list[TokenRow], Batch]] = []
    packing, start, graphs_before, graphs_at_start = [], 0.0, graphs(), 0
    for i, rows in enumerate(batches):
        if i == warm_up:
            start, graphs_at_start = trainer.wait(), graphs()
        begun = time.perf_counter()
        batch = pack(trainer.model, rows)
        packing.append(time.perf_counter() - begun)
        batch = batch.to(trainer.device)
        trainer.loss(batch, rows, loss).backward()
        trainer.update()
        work.append((rows, batch))
    seconds = trainer.wait() - start
    shapes = {tuple(batch.rows.input_ids_RT.shape) for _, batch in work}
    return trainer.figures(seconds, work[warm_up:]) | {
        "packing_ms": 1e3 * statistics.median(packing), "shapes": len(shapes),
        "graphs_in_warm_up": graphs_at_start - graphs_before, "graphs_in_steps": graphs() - graphs_at_start,
    }  # fmt: skip


VARIANTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "dense": ((), ("edl",)),
    "blocks + compile": (("blocks", "compile"), ("edl",)),
}
"""How the model is run, and the losses; the first, the path of d5f8c63, is what the other is compared with."""


def step_part(report: Report) -> None:
    """1.1 B: every variant's loss and gradient norm on the same weights first, then the time of a step."""
    model = made_model(report.sizes.step, report.device)
    trainer = Trainer.of(model, report.device)
    draw = random.Random(SEED)
    rows = random_rows(report.sizes, draw)
    fresh = [random_rows(report.sizes, draw, spread=report.sizes.rows // 8) for _ in range(2 * report.sizes.steps)]
    held = {name: p.detach().clone() for name, p in model.named_parameters()}
    reference: dict[str, tuple[float, float]] = {}
    for variant, (how, losses) in VARIANTS.items():
        with report.part(f"step, {variant}"):
            prepare(model, how)
            for loss in losses:
                with torch.no_grad():
                    for key, parameter in model.named_parameters():
                        parameter.copy_(held[key])
                compare_and_time(report, trainer, rows, f"{variant} {loss}", reference)
            if how == ("blocks", "compile"):
                reference_apart(report, trainer, rows)
                report.add("step, fresh shapes", **fresh_steps(trainer, fresh, "edl", warm_up=report.sizes.steps))
                fixed = fixed_steps(trainer, rows, "edl", report.sizes.steps)
                report.add("step, fixed shape on the graph for any", **fixed)


def compare_and_time(
    report: Report, trainer: Trainer, rows: list[TokenRow], name: str, reference: dict[str, tuple[float, float]]
) -> None:
    """Loss and gradient norm beside the first variant's of that loss, which go to `reference`; then steps on one batch."""
    loss = name.split()[-1]
    start = trainer.wait()
    found = trainer.gradient_norm(trainer.packed(rows), rows, loss)
    first = trainer.wait() - start
    expected = reference.setdefault(loss, found)
    loss_apart, norm_apart = (abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True))
    assert loss_apart < 1e-3 and norm_apart < 2e-2, f"loss {loss_apart} and norm {norm_apart} off the dense path's"
    figures = fixed_steps(trainer, rows, loss, report.sizes.steps)
    report.add(f"step, {name}", loss_apart=loss_apart, norm_apart=norm_apart, first_pass_s=first, **figures)


def reference_apart(report: Report, trainer: Trainer, rows: list[TokenRow]) -> None:
    """How far log P of two texts of a prompt is apart between evaluation without gradients and a training forward, in nats."""
    batch = trainer.packed(rows)
    found = []
    for training in (False, True):
        trainer.model.train(training)
        with torch.set_grad_enabled(training):
            hidden_NH = hidden_at(trainer.model, batch.rows, batch.predictor_N)
            found.append(trainer.head(linear_log_probs, hidden_NH, batch.token_N)[0].detach())
    report.add("references", tokens=len(found[0]), largest_apart_nats=(found[0] - found[1]).abs().max().item())


def seven_part(report: Report) -> None:
    """7B, rows of 2,048 tokens, full fine-tune in bf16 with AdamW's moments in bf16; as many rows at once as go in."""
    sizes, draw = report.sizes, random.Random(SEED)
    model = made_model(sizes.seven, report.device)
    trainer = Trainer.of(model, report.device)
    prompt = sizes.tree_tokens * 3 // 4
    left = sizes.tree_tokens - prompt + 3  # a target's last token is no node
    lengths = [left // 3, left // 3, left - 2 * (left // 3)]
    for count in sizes.trees:
        rows = [random_row(draw, sizes.seven.vocab_size, prompt, lengths) for _ in range(count)]
        name = f"7B, {count} x {sizes.tree_tokens}"
        done = False
        with report.part(name):
            prepare(model, ("blocks", "compile"))
            figures = fixed_steps(trainer, rows, "edl", max(2, sizes.steps // 2))
            report.add(f"{name}, edl", **figures)
            done = True
            report.add(f"{name}, edl, 2 micro-batches", **fixed_steps(trainer, rows, "edl", 1, accumulate=2))
        if done:
            break
        trainer.optimizer.zero_grad()
