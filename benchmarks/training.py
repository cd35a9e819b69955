"""The training loop against the trainers one would install: TRL's DPO and SFT, and Hugging Face's own, on the same rows.

    python benchmarks/training.py [cdpo P192/C32] [cdpo P64/C64] [supervised] [edl] [--repeats 3] [--out benchmarks/results/training.json]

An 18 M GPT-2 of random weights in fp32, one thread. Every variant trains in a process of its own, the variants in turn, with the same
rows in the same batches; their loss curves are compared before anything is claimed. CPU seconds are those of the steps after the
first: collation, logging and optimizer included, imports and tokenization not. Memory is the process's peak, libraries included.
TRL must be importable (put it on PYTHONPATH; it is no dependency).
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    DataCollatorForSeq2Seq,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from raw2s.config import TrainingConfig
from raw2s.decoding.scoring import target_logprobs
from raw2s.decoding.tokens import encode_prompt, encode_target
from raw2s.labels.rows import RowKind, TextTarget, TrainingRow
from raw2s.methods import LossSection
from raw2s.methods.cross_entropy import CrossEntropySection
from raw2s.methods.evidential import EvidentialSection
from raw2s.methods.preference import PreferenceSection
from raw2s.models.load import load_model, load_tokenizer
from raw2s.tasks import draw_halves
from raw2s.tasks.slurp_slots import SlotsSection
from raw2s.training.batching import plan_epoch, tokenize_row
from raw2s.training.job import Job

VOCABULARY, END = 50257, "<|endoftext|>"
SEED, LEARNING_RATE, BETA, KL_WEIGHT = 7, 1e-4, 0.1, 1e-4
PARITY = 1e-4
"""Nats a step's loss may differ, in the whole curve."""
PAIRS = {"cdpo P192/C32": (192, 32), "cdpo P64/C64": (64, 64)}
"""Tokens of a prompt and of a completion, its end marker included."""
N_PAIRS, PAIR_BATCH = 24, 4
UTTERANCES, UTTERANCE_BATCH = 256, 16
GROUPED = "HF Trainer, grouped by length"
"""Its best: rows of like length share a batch, which spares padding; other batches than raw2s's, so another curve, and no bar."""
VARIANTS = {
    **dict.fromkeys(PAIRS, ("raw2s", "TRL DPOTrainer")),
    "supervised": ("raw2s", "HF Trainer", "TRL SFTTrainer", GROUPED),
    "edl": ("raw2s", "HF Trainer, autograd EDL"),
}
BARS = {
    ("cdpo P192/C32", "TRL DPOTrainer"): (4.0, 6.0),
    ("cdpo P64/C64", "TRL DPOTrainer"): (2.0, 3.0),
    ("supervised", "HF Trainer"): (1.8, 2.5),
    ("supervised", "TRL SFTTrainer"): (1.8, 2.5),
    ("edl", "HF Trainer, autograd EDL"): (3.0, 4.0),
}
"""Times faster: the least that is claimed, and the aim."""
MEMORY_BAR = 0.6


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A word a token, w0 w1 ...: texts of exactly so many tokens."""
    vocabulary = {f"w{i}": i for i in range(VOCABULARY - 1)} | {END: VOCABULARY - 1}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="w0"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)


def prepare(case: str, folder: Path) -> dict[str, Any]:
    """The base model, its tokenizer and the rows, in the order in which raw2s takes them. Returns what they are."""
    torch.manual_seed(SEED)
    tokenizer = word_tokenizer() if case in PAIRS else load_tokenizer("tiny-gpt2")
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=256, n_layer=6, n_head=4, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
        bos_token_id=tokenizer.eos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    base = str(folder / "base")
    GPT2LMHeadModel(config).save_pretrained(base)
    tokenizer.save_pretrained(base)
    rows = preference_rows(case, base) if case in PAIRS else supervised_rows()
    tokenized = [tokenize_row(row, tokenizer, row_kind(case)) for row in rows]
    plan = plan_epoch(
        [row.length for row in tokenized], batch_size=batch_size(case), micro_batches=1, workers=1, rank=0, seed=SEED * 100_003
    )
    order = [i for chosen, _ in plan for i in chosen]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "in_order.jsonl").write_text("".join(json.dumps(rows[i]) + "\n" for i in order))
    tokens = [row.tree.predictors[0][0] + 1 + sum(len(s.ids) for s in row.sequences) for row in tokenized]
    return {"rows": len(rows), "batch_size": batch_size(case), "real_tokens": sum(tokens), "longest_row": max(tokens)}


def row_kind(case: str) -> RowKind:
    return "pair" if case in PAIRS else "targets"


def loss_section(case: str) -> LossSection:
    if case in PAIRS:
        return PreferenceSection(beta=BETA, label_smoothing=0)
    if case == "edl":  # unchecked: no config may leave out the annealing, and the trainer beside it has none
        return EvidentialSection.model_construct(kl_weight=KL_WEIGHT, kl_anneal_fraction=0.0)
    return CrossEntropySection()


def batch_size(case: str) -> int:
    return PAIR_BATCH if case in PAIRS else UTTERANCE_BATCH


def preference_rows(case: str, base: str) -> list[TrainingRow]:
    """Random texts; their reference log-probabilities are the base model's, as the pipeline computes them."""
    prompt_tokens, completion_tokens = PAIRS[case]
    draw = random.Random(SEED)

    def text(tokens: int) -> str:
        return " ".join(f"w{draw.randrange(VOCABULARY - 1)}" for _ in range(tokens))

    prompts = [text(prompt_tokens) + " " for _ in range(N_PAIRS)]
    pairs = [[text(completion_tokens - 1), text(completion_tokens - 1)] for _ in prompts]
    scored = target_logprobs(load_model(base, "text"), load_tokenizer(base), prompts, pairs)
    return [
        TrainingRow(
            id=i, prompt=prompt, chosen=chosen, rejected=rejected,
            ref_chosen=sum(reference[0].logprobs), ref_rejected=sum(reference[1].logprobs), margin=1.0,
        )
        for i, (prompt, (chosen, rejected), reference) in enumerate(zip(prompts, pairs, scored, strict=True))
    ]  # fmt: skip


def supervised_rows() -> list[TrainingRow]:
    """SLURP's utterances and annotated slots."""
    examples = draw_halves(SlotsSection(n_teacher=1, n_student=UTTERANCES), SEED).student
    return [TrainingRow(id=e["id"], prompt=e["prompt"], targets=[TextTarget(text=e["target"], weights=[1.0])]) for e in examples]


def raw2s(case: str, folder: Path) -> tuple[list[float], list[float]]:
    """The loop itself, as a Ray Train worker runs it. What it publishes of every step is kept."""
    os.environ |= {
        "DS_ACCELERATOR": "cpu", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500",
    }  # fmt: skip
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    from raw2s.training.loop import train  # DeepSpeed reads the environment  # noqa: PLC0415

    clock: list[float] = []
    losses: list[float] = []

    def publish(done: int, total: int, note: str, point: dict[str, float] | None) -> None:
        clock.append(time.process_time())
        if point is not None:
            losses.append(point["loss"])

    training = TrainingConfig(
        epochs=1, batch_size=batch_size(case), micro_batch_size=batch_size(case), learning_rate=LEARNING_RATE, schedule="constant",
        zero_stage=0, checkpoint_every=None,
    )  # fmt: skip
    (folder / "none.jsonl").touch()
    job = Job(
        name=case,
        model=str(folder / "base"),
        task="slurp_slots",
        form="text",
        classes=(),
        rows=row_kind(case),
        train_file=str(folder / "rows.jsonl"),
        validation_file=str(folder / "none.jsonl"),
        training=training,
        loss=loss_section(case),
        seed=SEED,
    )
    train(job, 0, 1, checkpoint=None, report=lambda _, made: shutil.rmtree(made), publish=publish)
    return losses, clock


class Clock(TrainerCallback):
    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.process_time())


def common_arguments(case: str, folder: Path) -> dict[str, Any]:
    """Of the peers' configs: what raw2s does, in their words."""
    return {
        "output_dir": str(folder / "out"), "num_train_epochs": 1, "per_device_train_batch_size": batch_size(case),
        "learning_rate": LEARNING_RATE, "lr_scheduler_type": "constant", "train_sampling_strategy": "sequential", "use_cpu": True,
        "bf16": False, "gradient_checkpointing": False, "logging_steps": 1, "save_strategy": "no", "report_to": "none",
        "disable_tqdm": True, "seed": SEED,
    }  # fmt: skip


def rows_in_order(folder: Path) -> list[TrainingRow]:
    return [json.loads(line) for line in (folder / "in_order.jsonl").read_text().splitlines()]


def encoded_rows(folder: Path, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, list[int]]]:
    rows = []
    for row in rows_in_order(folder):
        prompt, target = encode_prompt(tokenizer, row["prompt"]), encode_target(tokenizer, row["targets"][0]["text"])[0]
        rows.append({"input_ids": prompt + target, "labels": [-100] * len(prompt) + target})
    return rows


def of_trainer(trainer: Trainer) -> tuple[list[float], list[float]]:
    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    return [point["loss"] for point in trainer.state.log_history if "loss" in point], clock.seconds


def trl_dpo(case: str, folder: Path) -> tuple[list[float], list[float]]:
    """With the reference's log-probabilities computed before, its best: no forward of the reference in a step.

    Its sigmoid loss ignores `label_smoothing`, so epsilon is 0 on both sides; the step's work is the same with any.
    """
    from trl import DPOConfig, DPOTrainer  # noqa: PLC0415

    dataset = Dataset.from_list([{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in rows_in_order(folder)])
    arguments = DPOConfig(**common_arguments(case, folder), beta=BETA, precompute_ref_log_probs=True, max_length=None)
    model = load_model(str(folder / "base"), "text")
    return of_trainer(
        DPOTrainer(model, args=arguments, train_dataset=dataset, processing_class=load_tokenizer(str(folder / "base")))
    )


def trl_sft(case: str, folder: Path) -> tuple[list[float], list[float]]:
    from trl import SFTConfig, SFTTrainer  # noqa: PLC0415

    tokenizer = load_tokenizer(str(folder / "base"))
    tokenizer.pad_token = tokenizer.eos_token
    arguments = SFTConfig(**common_arguments(case, folder), max_length=None)
    dataset = Dataset.from_list(encoded_rows(folder, tokenizer))
    model = load_model(str(folder / "base"), "text")
    return of_trainer(SFTTrainer(model, args=arguments, train_dataset=dataset, processing_class=tokenizer))


def hf_trainer(case: str, folder: Path, **more: Any) -> tuple[list[float], list[float]]:
    tokenizer = load_tokenizer(str(folder / "base"))
    tokenizer.pad_token = tokenizer.eos_token
    kind = EvidentialTrainer if case == "edl" else Trainer
    return of_trainer(kind(
        load_model(str(folder / "base"), "text"), TrainingArguments(**common_arguments(case, folder) | more),
        data_collator=DataCollatorForSeq2Seq(tokenizer), train_dataset=Dataset.from_list(encoded_rows(folder, tokenizer)),
    ))  # fmt: skip


def hf_trainer_grouped(case: str, folder: Path) -> tuple[list[float], list[float]]:
    return hf_trainer(case, folder, train_sampling_strategy="group_by_length")


class EvidentialTrainer(Trainer):
    """Eq. 3-4 for hard labels as one would write it, on the target positions' logits only."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any) -> torch.Tensor:
        labels_BT = inputs.pop("labels")[:, 1:]
        logits_NV = model(**inputs).logits[:, :-1][labels_BT != -100]
        token_N1 = labels_BT[labels_BT != -100][:, None]
        alpha_NV = logits_NV.exp() + 1
        nll_N = alpha_NV.sum(-1).log() - alpha_NV.gather(-1, token_N1)[:, 0].log()
        others_NV = alpha_NV.scatter(-1, token_N1, 1.0)
        total_N = others_NV.sum(-1)
        kl_N = total_N.lgamma() - torch.tensor(float(VOCABULARY)).lgamma() - others_NV.lgamma().sum(-1)
        kl_N = kl_N + ((others_NV - 1) * (others_NV.digamma() - total_N.digamma()[:, None])).sum(-1)
        return (nll_N + KL_WEIGHT * kl_N).mean()


RUNS: dict[str, Callable[[str, Path], tuple[list[float], list[float]]]] = {
    "raw2s": raw2s, "TRL DPOTrainer": trl_dpo, "TRL SFTTrainer": trl_sft,
    "HF Trainer": hf_trainer, "HF Trainer, autograd EDL": hf_trainer, GROUPED: hf_trainer_grouped,
}  # fmt: skip


def run_alone(case: str, variant: str, folder: Path) -> None:
    """What a variant's process does: train, and write curve, CPU seconds of the steps after the first, and peak memory."""
    torch.set_num_threads(1)
    losses, clock = RUNS[variant](case, folder)
    found = {"losses": losses, "cpu_seconds": clock[-1] - clock[0], "steps": len(clock) - 1, "peak_mib": harness.peak_mib()}
    (folder / "found.json").write_text(json.dumps(found))


def measure(case: str, repeats: int) -> dict[str, Any]:
    """All variants of a case, in turn. Raises AssertionError where a curve is not raw2s's."""
    runs: dict[str, list[dict[str, Any]]] = {variant: [] for variant in VARIANTS[case]}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        about = prepare(case, folder)
        for _ in range(repeats):
            for variant in VARIANTS[case]:
                command = [sys.executable, __file__, "--alone", case, variant, made]
                done = subprocess.run(command, capture_output=True, text=True, env=environment_of_a_run(folder))
                if done.returncode:
                    raise RuntimeError(f"{variant}: {done.stderr[-3000:]}")
                runs[variant].append(json.loads((folder / "found.json").read_text()))
                shutil.rmtree(folder / "out", ignore_errors=True)
    ours = runs["raw2s"][0]
    tokens_a_step = about["real_tokens"] * about["batch_size"] / about["rows"]
    result: dict[str, Any] = {**about, "curve": ours["losses"], "variants": {}, "against": {}}
    for variant, found in runs.items():
        seconds = [run["cpu_seconds"] / run["steps"] for run in found]
        result["variants"][variant] = {
            "cpu_seconds_per_step": harness.summary(seconds),
            "real_tokens_per_cpu_second": tokens_a_step / min(seconds),
            "peak_mib": min(run["peak_mib"] for run in found),
        }
    mine = result["variants"]["raw2s"]
    for variant in VARIANTS[case][1:]:
        theirs = result["variants"][variant]
        memory = mine["peak_mib"] / theirs["peak_mib"]
        faster = theirs["cpu_seconds_per_step"]["min"] / mine["cpu_seconds_per_step"]["min"]
        against = result["against"][variant] = {"times_faster": faster, "memory": memory}
        if variant == GROUPED:
            continue
        apart = max(abs(a - b) for a, b in zip(ours["losses"], runs[variant][0]["losses"], strict=True))
        assert apart < PARITY, f"{case}: the curve of {variant} is {apart} off"
        bar, aim = BARS[case, variant]
        against |= {"curve_apart": apart, "bar": bar, "aim": aim, "met": faster >= bar}
        if case in PAIRS:
            against |= {"memory_bar": MEMORY_BAR, "memory_met": memory <= MEMORY_BAR}
    return result


def environment_of_a_run(folder: Path) -> dict[str, str]:
    return os.environ | {
        "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache"),
        "TRANSFORMERS_VERBOSITY": "error",
    }  # fmt: skip


def main() -> None:
    parser = harness.parser(__doc__, "training.json", parts=VARIANTS, repeats=3)
    parser.add_argument("--alone", nargs=3, metavar=("CASE", "VARIANT", "FOLDER"), help="what the process of a variant runs")
    arguments = parser.parse_args()
    if arguments.alone:
        case, variant, folder = arguments.alone
        return run_alone(case, variant, Path(folder))
    libraries = ("torch", "transformers", "trl", "accelerate", "deepspeed", "datasets")
    environment = harness.environment(*libraries, threads=1, seed=SEED)
    for case in arguments.parts or VARIANTS:
        measured = measure(case, arguments.repeats)
        harness.write_part(arguments.out, case, measured, environment)
        for variant, found in measured["against"].items():
            print(f"{case}: {found['times_faster']:.2f}x {variant} (bar {found.get('bar')}), memory {found['memory']:.2f}x")


if __name__ == "__main__":
    main()
