"""What `raw2s plan` says of memory on a CPU beside what a process there takes: training steps, scoring, beams.

    nice python benchmarks/plan.py ["train, zero 1"] ["train, zero 0"] [score] [beams] [--out benchmarks/results/plan.json]

Models of random weights in fp32, large enough that weights and activations outweigh the interpreter. Each case runs in a process of
its own, through the training loop or the functions that label; its peak is resident memory less what stood before the model was
loaded. `score` and `beams` run twice: as they are, and with a malloc that returns what is freed to the system at once (glibc keeps blocks
of less than 32 MiB, which a plan does not foresee). The figures of GPUs are in gpu.json; tests/sizing/test_measured.py holds both
to the plan.
"""

import gc
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PretrainedConfig, PreTrainedModel

from raw2s.config import TrainingConfig
from raw2s.decoding.packing import token_tree
from raw2s.decoding.scoring import BATCH_TOKENS, continuation_logprobs
from raw2s.decoding.search import beam_search
from raw2s.methods.evidential import EvidentialSection
from raw2s.models.load import load_model, load_tokenizer
from raw2s.pipeline.training_sizes import planned_step, sizes_of
from raw2s.sizing.activations import layer_memory
from raw2s.sizing.decoding import BeamBatch, beams_peak, scoring_peak
from raw2s.sizing.model import meta_model, model_size
from raw2s.sizing.stage import GIB
from raw2s.sizing.training import MicroBatch, step_peak
from raw2s.training.batching import collate
from raw2s.training.job import Job

SEED, BAR = 7, 0.15
LLAMA = LlamaConfig(
    vocab_size=16_000, hidden_size=768, intermediate_size=2048, num_hidden_layers=10, num_attention_heads=12, num_key_value_heads=4,
    max_position_embeddings=1024, tie_word_embeddings=False,
)  # fmt: skip
GPT2 = GPT2Config(vocab_size=16_000, n_embd=640, n_layer=8, n_head=10)
SCORER = GPT2Config(n_embd=768, n_layer=12, n_head=12)
TRAININGS: dict[str, tuple[PretrainedConfig, TrainingConfig]] = {
    "train, zero 1": (LLAMA, TrainingConfig(epochs=2, batch_size=4, micro_batch_size=4)),
    "train, zero 0": (GPT2, TrainingConfig(epochs=2, batch_size=4, micro_batch_size=4, zero_stage=0)),
}
SCORED, BEAMS = (6, 300, 8, 20), (24, 300, 4, 6)
"""Prompts, tokens of each; candidates and tokens of each, or beams and new tokens."""


def resident(peak: bool = False) -> float:
    """Bytes of this process now, or the most since `forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:" if peak else "VmRSS:")[1].split()[0])


def forget_peak() -> float:
    """Bytes of this process now, from which a peak is counted."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident()


def text_rows(count: int) -> list[dict[str, Any]]:
    """Prompts of random words with a target each."""
    draw, words = random.Random(SEED), ["play", "the", "next", "song", "from", "my", "list", "in", "an", "hour", "please"]

    def text(length: int) -> str:
        return " ".join(draw.choice(words) for _ in range(length))

    return [{"id": i, "prompt": text(200), "targets": [{"text": text(40), "weights": [1.0]}]} for i in range(count)]


def train_case(name: str) -> dict[str, float]:
    """The loop itself, two steps of one micro-batch each, and the export at the end."""
    config, training = TRAININGS[name]
    os.environ |= {"DS_ACCELERATOR": "cpu", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    from raw2s.training import loop  # DeepSpeed asks for its device when it is imported  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        model, file = Path(folder) / "model", Path(folder) / "rows.jsonl"
        save_random(config, model)
        load_tokenizer("tiny-llama").save_pretrained(model)
        file.write_text("".join(json.dumps(row) + "\n" for row in text_rows(training.batch_size)))
        dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=0, world_size=1)
        job = Job(
            name="plan", model=str(model), task="slurp_slots", form="text", classes=(), rows="targets", train_file=str(file),
            validation_file=str(file), training=training, loss=EvidentialSection(), seed=SEED,
        )  # fmt: skip
        before = forget_peak()
        loop.train(job, 0, 1, checkpoint=None, report=lambda *_: None, publish=lambda *_: None)
        measured = resident(peak=True) - before
        tokenizer = load_tokenizer(str(model))
        batch = collate(loop.read_rows(str(file), tokenizer, "targets"), tokenizer, config.hidden_size)
    rows, width = batch.rows.input_ids_RT.shape
    largest, on_meta = MicroBatch(rows=rows, width=width, targets=len(batch.token_N)), meta_model(config)
    peak = step_peak(sizes_of(on_meta, training), planned_step(on_meta, training, largest, 0.0))
    return found(peak.total, measured, before, rows=rows, width=width, targets=largest.targets)


def save_random(config: PretrainedConfig, folder: Path) -> None:
    torch.manual_seed(SEED)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)


def found(planned: float, measured: float, process: float, **shape: int) -> dict[str, Any]:
    apart = planned / measured - 1
    return {
        "planned_gib": planned / GIB, "measured_gib": measured / GIB, "apart": apart, "bar": BAR, "met": abs(apart) <= BAR,
        "process_gib": process / GIB, **shape,
    }  # fmt: skip


def decode_case(name: str) -> dict[str, Any]:
    """A unit of scoring or of beams by the functions that label."""
    draw = random.Random(SEED)
    prompts, tokens, texts, length = SCORED if name == "score" else BEAMS

    def ids(count: int) -> list[int]:
        return [draw.randrange(SCORER.vocab_size) for _ in range(count)]

    asked = [ids(tokens) for _ in range(prompts)]
    candidates = [[ids(length) for _ in range(texts)] for _ in asked]
    with tempfile.TemporaryDirectory() as folder:
        save_random(SCORER, Path(folder))
        gc.collect()
        before = forget_peak()
        model = load_model(folder, "text")
        with torch.inference_mode():
            if name == "score":
                continuation_logprobs(model, asked, candidates, padding=0)
            else:
                given = torch.tensor(asked)
                beam_search(model, given, torch.ones_like(given), beams=texts, max_new_tokens=length, end_id=None)
        measured = resident(peak=True) - before
    on_meta = meta_model(SCORER)
    size, layer = model_size(on_meta), layer_memory(on_meta)
    if name == "score":
        nodes = len(token_tree(asked[0], candidates[0]).ids)
        at_once = BATCH_TOKENS["cpu"] // nodes
        batch = MicroBatch(rows=at_once, width=nodes, targets=at_once * texts * length)
        peak = scoring_peak(size, layer, batch, weight_bytes=4, card_bytes=None)
    else:
        unit = BeamBatch(prompts=prompts, width=tokens, beams=texts, max_new_tokens=length)
        peak = beams_peak(size, layer, unit, weight_bytes=4, on_gpu=False)
    return found(peak.total, measured, before, prompts=prompts, tokens=tokens)


CASES: dict[str, Callable[[str], dict[str, Any]]] = {
    **dict.fromkeys(TRAININGS, train_case), "score": decode_case, "beams": decode_case,
}  # fmt: skip


RETURNED = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
"""glibc then maps every block of 1 MiB or more by itself."""


def main() -> None:
    parser = harness.parser(__doc__, "plan.json", parts=CASES)
    parser.add_argument("--here", action="store_true", help="the one part in this process, its result as the last line")
    arguments = parser.parse_args()
    if arguments.here:
        torch.set_num_threads(1)
        [name] = arguments.parts
        print(json.dumps(CASES[name](name)))
        return
    environment = harness.environment("torch", "transformers", "deepspeed", threads=1)
    for name in arguments.parts or CASES:
        ways = {name: {}} if name in TRAININGS else {name: {}, f"{name}, freed memory returned": RETURNED}
        for title, malloc in ways.items():
            command = [sys.executable, __file__, name, "--here"]
            run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | malloc)
            result = json.loads(run.stdout.splitlines()[-1])
            print(json.dumps({title: result}), flush=True)
            harness.write_part(arguments.out, title, result, environment)


if __name__ == "__main__":
    main()
