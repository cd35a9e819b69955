"""Training steps and scoring on one GPU: block masks and compiled layers against the dense mask, each bar beside its figure.

    python benchmarks/gpu_step.py [--out FILE] [--only step seven scoring] [--tiny]

Needs torch and transformers alone. Losses and scores are compared before anything is timed; what raises is written down and the
rest goes on. `--tiny` runs the same code uncompiled on a CPU with toy models, to see that it runs.
"""

import argparse
import gc
import json
import random
import statistics
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn.attention import flex_attention
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PretrainedConfig, PreTrainedModel

from raw2s.decoding import scoring
from raw2s.decoding.block_masks import use_block_masks
from raw2s.decoding.packing import token_tree
from raw2s.models.layers import checkpoint_layers, compile_layers, decoder_layers
from raw2s.training.batching import Batch, TokenRow, TokenSequence, collate
from raw2s.training.job import LossSettings
from raw2s.training.objectives import Coefficients, PackedModel, token_loss
from raw2s.training.throughput import WORK, Meter

LOSSES = {"ce": LossSettings(gamma_max=0.2), "edl": LossSettings(edl=True, kl_weight=1e-5, gamma_max=0.2)}
SEED = 7
MEASURED_BEFORE = {"edl_step_ms": 298, "ce_step_ms": 280, "scoring_ms": 197}
"""At d5f8c63 on one H200: 1.1 B step, and scoring in bf16."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Models and batches; `rows` and `trees` are prompts of a step, targets are three a prompt."""

    step: PretrainedConfig
    seven: PretrainedConfig
    scorer: PretrainedConfig
    rows: int = 32
    prompt: tuple[int, int] = (280, 360)
    target: tuple[int, int] = (10, 60)
    trees: tuple[int, ...] = (6, 4)
    tree_tokens: int = 2048
    scored: tuple[int, int, int, int] = (32, 450, 15, 30)
    """Prompts, tokens of each, candidates of each, tokens of each."""
    steps: int = 10


FULL = Sizes(
    step=LlamaConfig(
        vocab_size=32_000, hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32,
        num_key_value_heads=4, max_position_embeddings=2048, tie_word_embeddings=False,
    ),
    seven=LlamaConfig(
        vocab_size=32_000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=32, max_position_embeddings=4096, tie_word_embeddings=False,
    ),
    scorer=GPT2Config(n_embd=1280, n_layer=36, n_head=20),
)  # fmt: skip
_TOY = LlamaConfig(
    vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=2048, tie_word_embeddings=False,
)  # fmt: skip
TINY = Sizes(
    step=_TOY, seven=_TOY, scorer=GPT2Config(vocab_size=512, n_embd=64, n_layer=2, n_head=4), rows=4, prompt=(20, 40),
    target=(5, 9), trees=(2,), tree_tokens=300, scored=(3, 40, 4, 6), steps=2,
)  # fmt: skip


@dataclass
class Report:
    """What is found, printed and written as it comes."""

    out: Path
    device: torch.device
    sizes: Sizes
    found: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, **figures: Any) -> None:
        self.found[name] = figures
        print(json.dumps({name: figures}), flush=True)
        self.out.write_text(json.dumps(self.found, indent=1) + "\n")

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What raises inside is written down, and the rest goes on."""
        start = time.perf_counter()
        try:
            yield
        except Exception:
            self.add(f"{name}: error", traceback=traceback.format_exc().splitlines()[-12:])
        print(f"# {name}: {time.perf_counter() - start:.1f} s", flush=True)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


# --- models and batches ---------------------------------------------------------------------------------------------------------


def made_model(config: PretrainedConfig, device: torch.device) -> PreTrainedModel:
    """Random weights in bf16, made on the device."""
    torch.manual_seed(SEED)
    with device:
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return model


def prepare(model: PreTrainedModel, how: Sequence[str]) -> None:
    """The model as one variant has it: `blocks`, `compile`, `liger` (for good), `recompute`; nothing is today's path."""
    model.set_attn_implementation("sdpa")
    for layer in decoder_layers(model):
        vars(layer).pop("forward", None)
    if "liger" in how:
        from liger_kernel.transformers import apply_liger_kernel_to_llama  # noqa: PLC0415

        apply_liger_kernel_to_llama(model=model, cross_entropy=False, fused_linear_cross_entropy=False)
    if "blocks" in how:
        use_block_masks(model)
    if "compile" in how:
        compile_layers(model)
    if "recompute" in how:
        checkpoint_layers(model, 1.0)


def random_row(draw: random.Random, vocabulary: int, prompt: int, targets: Sequence[int]) -> TokenRow:
    """A prompt and its three teachers' targets; a word of the bridge is two pieces, each of log-probability -0.1."""
    ids = [[draw.randrange(vocabulary) for _ in range(length)] for length in (prompt, *targets)]
    sequences = [
        TokenSequence(target, [piece // 2 for piece in range(len(target))], [1 / 3], [[-0.2] * (len(target) // 2 + 1)])
        for target in ids[1:]
    ]
    return TokenRow(0, token_tree(ids[0], ids[1:]), sequences, [], (), sum(targets) / 3)


def random_rows(sizes: Sizes, draw: random.Random, *, short: bool = False) -> list[TokenRow]:
    prompt, target = ((10, 20), (4, 9)) if short else (sizes.prompt, sizes.target)
    return [
        random_row(draw, sizes.step.vocab_size, draw.randint(*prompt), [draw.randint(*target) for _ in range(3)])
        for _ in range(sizes.rows)
    ]


def collated(packed: PackedModel, rows: Sequence[TokenRow], device: torch.device) -> Batch:
    return collate(rows, SimpleNamespace(pad_token_id=0), packed.hidden_size, packed.layout).to(device)  # type: ignore[arg-type]


# --- steps ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Trainer:
    packed: PackedModel
    optimizer: torch.optim.Optimizer
    meter: Meter
    device: torch.device

    @classmethod
    def of(cls, model: PreTrainedModel, device: torch.device) -> "Trainer":
        packed = PackedModel(model.train())
        optimizer = torch.optim.AdamW(packed.parameters(), lr=1e-5, fused=True)
        return cls(packed=packed, optimizer=optimizer, meter=Meter(packed, device, 1), device=device)

    def loss(self, batch: Batch, rows: Sequence[TokenRow], loss: LossSettings) -> Tensor:
        at = Coefficients(loss.gamma_max / 2, loss.kl_weight)
        total, _ = self.packed(batch, partial(token_loss, settings=loss, at=at))
        return total / sum(row.total for row in rows)

    def update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.packed.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def gradient_norm(self, batch: Batch, rows: Sequence[TokenRow], loss: LossSettings) -> tuple[float, float]:
        """The loss, and the norm of its gradient; no step."""
        value = self.loss(batch, rows, loss)
        value.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.packed.parameters() if p.grad is not None])
        self.optimizer.zero_grad()
        return value.item(), norm.item()

    def wait(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def figures(self, seconds: float, work: Sequence[tuple[list[TokenRow], Batch]]) -> dict[str, float]:
        """Of steps on those batches that took `seconds` together."""
        done = dict.fromkeys(WORK, 0.0)
        for rows, batch in work:
            counts = (sum(row.length for row in rows), batch.rows.input_ids_RT.numel(), len(batch.predictor_N))
            done = {key: done[key] + count for key, count in zip(WORK, counts, strict=True)}
        flops = sum(self.meter.flops[key] * done[key] for key in self.meter.flops)
        return {
            "ms": 1e3 * seconds / len(work),
            "tokens_per_second": done["tokens"] / seconds,
            "filler": 1 - done["tokens"] / done["cells"],
            **({"mfu": flops / seconds / self.meter.peak} if self.meter.peak else {}),
            "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if self.device.type == "cuda" else 0.0,
        }


def fixed_steps(trainer: Trainer, rows: list[TokenRow], loss: LossSettings, steps: int, accumulate: int = 1) -> dict[str, float]:
    """Steps on one batch, each waited for: the median. `accumulate` forward and backward passes a step."""
    batch = collated(trainer.packed, rows, trainer.device)
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


def fresh_steps(trainer: Trainer, batches: Iterable[list[TokenRow]], loss: LossSettings, *, warm_up: int) -> dict[str, float]:
    """Steps on new rows each, packed as they come and not waited for; figures of all after the first `warm_up`."""
    work: list[tuple[list[TokenRow], Batch]] = []
    packing, start = [], 0.0
    for i, rows in enumerate(batches):
        if i == warm_up:
            start = trainer.wait()
        begun = time.perf_counter()
        batch = collate(rows, SimpleNamespace(pad_token_id=0), trainer.packed.hidden_size, trainer.packed.layout)  # type: ignore[arg-type]
        packing.append(time.perf_counter() - begun)
        batch = batch.to(trainer.device)
        trainer.loss(batch, rows, loss).backward()
        trainer.update()
        work.append((rows, batch))
    seconds = trainer.wait() - start
    shapes = {tuple(batch.rows.input_ids_RT.shape) for _, batch in work}
    return trainer.figures(seconds, work[warm_up:]) | {"packing_ms": 1e3 * statistics.median(packing), "shapes": len(shapes)}


VARIANTS: dict[str, tuple[tuple[str, ...], str]] = {
    "dense edl (today)": ((), "edl"),
    "blocks + compile edl": (("blocks", "compile"), "edl"),
    "blocks + compile ce": (("blocks", "compile"), "ce"),
    "dense ce (today)": ((), "ce"),
    "blocks edl": (("blocks",), "edl"),
    "dense + compile edl": (("compile",), "edl"),
    "blocks + liger edl": (("blocks", "liger"), "edl"),  # last, for its modules stay
}


def step_part(report: Report) -> None:
    """1.1 B: every variant's loss and gradient norm on the same weights first, then the time of a step."""
    sizes = report.sizes
    model = made_model(sizes.step, report.device)
    trainer = Trainer.of(model, report.device)
    draw = random.Random(SEED)
    rows, short = random_rows(sizes, draw), random_rows(sizes, draw, short=True)
    fresh = [random_rows(sizes, draw) for _ in range(4 + sizes.steps)]
    held: dict[str, Tensor] = {name: p.detach().clone() for name, p in model.named_parameters()}
    reference: dict[str, tuple[float, float]] = {}
    for name, (how, loss) in VARIANTS.items():
        with report.part(f"step, {name}"):
            with torch.no_grad():
                for key, parameter in model.named_parameters():
                    parameter.copy_(held[key])
            prepare(model, how)
            settings = LOSSES[loss]
            if loss not in reference:
                prepare(model, ())
                reference[loss] = trainer.gradient_norm(collated(trainer.packed, rows, report.device), rows, settings)
                prepare(model, how)
            start = trainer.wait()
            found = trainer.gradient_norm(collated(trainer.packed, rows, report.device), rows, settings)
            compiled = trainer.wait() - start
            apart = [abs(a - b) / abs(b) for a, b in zip(found, reference[loss], strict=True)]
            assert apart[0] < 1e-3 and apart[1] < 2e-2, f"loss and norm differ by {apart} from the dense path's"
            figures = fixed_steps(trainer, rows, settings, sizes.steps)
            report.add(f"step, {name}", loss_apart=apart[0], norm_apart=apart[1], first_pass_s=compiled, **figures)
            if name == "blocks + compile edl":
                report.add("step, fresh shapes", **fresh_steps(trainer, fresh, settings, warm_up=4))
                report.add("step, fixed shape on the graph for any", **fixed_steps(trainer, rows, settings, sizes.steps))
            if loss == "edl" and how in ((), ("blocks", "compile"), ("compile",)):
                report.add(f"short rows, {name}", **fixed_steps(trainer, short, settings, sizes.steps))
            if name == "blocks + compile ce":
                reference_apart(report, trainer, rows)


def reference_apart(report: Report, trainer: Trainer, rows: list[TokenRow]) -> None:
    """How far log P of two texts of a prompt is apart between evaluation without gradients and a training forward, in nats."""
    batch = collated(trainer.packed, rows, report.device)
    found = []
    for training in (False, True):
        trainer.packed.train(training)
        with torch.set_grad_enabled(training):
            hidden: list[Tensor] = []
            trainer.packed(batch, lambda head, hidden_NH, _, kept=hidden: (kept.append(hidden_NH), {}))
            logged = trainer.packed.head(scoring.linear_log_probs, hidden[0], batch.token_N)[0]
        found.append(logged.detach())
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
            figures = fixed_steps(trainer, rows, LOSSES["edl"], max(2, sizes.steps // 2))
            report.add(f"{name}, edl", **figures)
            done = True
            report.add(f"{name}, ce", **fixed_steps(trainer, rows, LOSSES["ce"], 3))
            report.add(f"{name}, edl, 4 micro-batches", **fixed_steps(trainer, rows, LOSSES["edl"], 1, accumulate=4))
            prepare(model, ("blocks", "compile", "recompute"))
            report.add(f"{name}, edl, all layers recomputed", **fixed_steps(trainer, rows, LOSSES["edl"], 2))
        if done:
            break
        trainer.optimizer.zero_grad()


# --- scoring --------------------------------------------------------------------------------------------------------------------

Ids = list[int]
Score = Callable[[PreTrainedModel, list[Ids], list[list[Ids]]], Tensor]


def packed_score(model: PreTrainedModel, prompts: list[Ids], candidates: list[list[Ids]]) -> Tensor:
    """Summed log P of every candidate."""
    scored = scoring.continuation_logprobs(model, prompts, candidates, filler=0)
    return torch.tensor([sum(score) for scores in scored for score in scores])


def todays_score(model: PreTrainedModel, prompts: list[Ids], candidates: list[list[Ids]]) -> Tensor:
    """As at d5f8c63 on CUDA: the vocabulary in blocks of 256 MB."""
    with patch.object(scoring, "_token_logprobs", scoring._logprobs_by_columns), patch.object(scoring, "HEAD_ELEMENTS", 2**26):
        return packed_score(model, prompts, candidates)


@torch.inference_mode()
def plain_score(model: PreTrainedModel, prompts: list[Ids], candidates: list[list[Ids]], *, keep: bool) -> Tensor:
    """A prompt's candidates as one batch: with `logits_to_keep`, or all logits and their log-softmax."""
    sums = []
    for prompt, texts in zip(prompts, candidates, strict=True):
        text_KC = torch.tensor(texts, device=model.device)
        ids_KT = torch.cat([torch.tensor(prompt, device=model.device).expand(len(texts), -1), text_KC], dim=1)
        tail = text_KC.shape[1] + 1
        logits = model(ids_KT, logits_to_keep=tail).logits if keep else model(ids_KT).logits.log_softmax(-1)[:, -tail:]
        logprob_KCV = logits[:, :-1].float().log_softmax(-1)
        sums.append(logprob_KCV.gather(2, text_KC[:, :, None])[:, :, 0].sum(1))
    return torch.cat(sums).cpu()


def scoring_part(report: Report) -> None:
    """GPT-2 Large's shape in bf16: scores against fp32's first, then the least time of each way."""
    config, (prompts_n, prompt, candidates_n, candidate) = report.sizes.scorer, report.sizes.scored
    model = made_model(config, report.device).eval()
    torch.manual_seed(SEED)
    prompts = torch.randint(config.vocab_size, (prompts_n, prompt)).tolist()
    candidates = torch.randint(config.vocab_size, (prompts_n, candidates_n, candidate)).tolist()
    exact = todays_score(model.float(), prompts, candidates)
    model.bfloat16()
    keep, naive = partial(plain_score, keep=True), partial(plain_score, keep=False)
    variants: dict[str, tuple[tuple[str, ...], Score, int]] = {
        "today": ((), todays_score, 5),
        "blocks + compile": (("blocks", "compile"), packed_score, 9),
        "fused head": ((), packed_score, 5),
        "blocks": (("blocks",), packed_score, 5),
        "logits_to_keep": ((), keep, 1),
        "naive": ((), naive, 1),
    }
    seconds: dict[str, float] = {}
    errors: dict[str, float] = {}
    for name, (how, score, repeats) in variants.items():
        with report.part(f"scoring, {name}"):
            prepare(model, how)
            start = time.perf_counter()
            error_C = (score(model, prompts, candidates) - exact).abs()
            first = time.perf_counter() - start
            errors[name] = error_C.mean().item()
            assert errors[name] < 1.5 * errors["today"] + 1e-3, (
                f"scores are {errors[name]} from fp32's, today's {errors['today']}"
            )
            score(model, prompts, candidates)
            times = []
            for _ in range(repeats):
                start = time.perf_counter()
                score(model, prompts, candidates)
                times.append(time.perf_counter() - start)
            seconds[name] = statistics.median(times)
            report.add(
                f"scoring, {name}", ms=1e3 * seconds[name], times_today=seconds["today"] / seconds[name], first_call_s=first,
                error_nats_mean=errors[name], error_nats_max=error_C.max().item(),
            )  # fmt: skip


# --- all of it ------------------------------------------------------------------------------------------------------------------


def bars(report: Report) -> None:
    """Each bar of the issue beside its figure."""
    found = report.found

    def figure(name: str, key: str) -> float:
        return float(found.get(name, {}).get(key, float("nan")))

    new, fresh = "step, blocks + compile edl", "step, fresh shapes"
    seven = max((v.get("mfu", 0.0) for k, v in found.items() if k.startswith("7B") and k.endswith("edl")), default=0.0)
    peak = max((v.get("peak_gib", 0.0) for k, v in found.items() if k.startswith("7B")), default=0.0)
    per_token = figure("step, fixed shape on the graph for any", "tokens_per_second") / figure(fresh, "tokens_per_second")
    report.add(
        "bars",
        step_times_today={"bar": 1.45, "is": figure("step, dense edl (today)", "ms") / figure(new, "ms")},
        step_times_measured_before={"bar": 1.45, "is": MEASURED_BEFORE["edl_step_ms"] / figure(new, "ms")},
        step_mfu={"bar": 0.42, "is": figure(new, "mfu")},
        fresh_over_fixed_a_token={"bar": 1.05, "is": per_token},
        seven_mfu={"bar": 0.38, "goal": 0.57, "is": seven},
        seven_peak_gib={"bar": 115, "is": peak},
        scoring_times_today={"bar": 1.5, "is": figure("scoring, blocks + compile", "times_today")},
        scoring_times_measured_before={
            "bar": 1.5, "is": MEASURED_BEFORE["scoring_ms"] / figure("scoring, blocks + compile", "ms"),
        },
        references_apart_nats={"bar": 1e-4, "is": figure("references", "largest_apart_nats")},
    )  # fmt: skip


PARTS: dict[str, Callable[[Report], None]] = {"step": step_part, "scoring": scoring_part, "seven": seven_part}


def run(out: Path, tiny: bool = False, only: Sequence[str] = ()) -> dict[str, Any]:
    """All parts, or those named, most wanted first; what is found, also in `out` as it comes."""
    device = torch.device("cuda" if torch.cuda.is_available() and not tiny else "cpu")
    report = Report(out, device, TINY if tiny else FULL)
    gpu = torch.cuda.get_device_name() if device.type == "cuda" else None
    report.add("environment", gpu=gpu, torch=torch.__version__, seed=SEED)
    with patch.object(flex_attention, "_validate_device", lambda *_: None) if tiny else patch.dict({}):
        if tiny:
            torch.compiler.set_stance("force_eager")  # FlexAttention compiles no backward pass for a CPU
        for name, part in PARTS.items():
            if not only or name in only:
                with report.part(name):
                    part(report)
    bars(report)
    return report.found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gpu_step.json")
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=[])
    parser.add_argument("--tiny", action="store_true", help="toy models on a CPU")
    arguments = parser.parse_args()
    run(arguments.out, arguments.tiny, arguments.only)


if __name__ == "__main__":
    main()
