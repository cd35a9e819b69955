"""What a stage takes that asks a model for answers or scores, and the unit of work with which it fits."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel

from raw2s.config import Decoding
from raw2s.decoding.packing import packable
from raw2s.decoding.scoring import BATCH_TOKENS
from raw2s.pipeline.answer_stages import Labeler
from raw2s.pipeline.nearest import nearest_batch
from raw2s.pipeline.sampled_rows import TextTokens, text_tokens
from raw2s.pipeline.sized_models import sized_layer, sized_model, sized_tokenizer
from raw2s.sizing.decoding import BeamBatch, DecodingPeak, beams_peak, scoring_peak
from raw2s.sizing.model import ModelSize, model_size
from raw2s.sizing.stage import Device, StageSize
from raw2s.sizing.training import MicroBatch


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A model that answers `count` prompts, of which `prompts` are a sample; `answers` stand for what it writes."""

    stage: str
    section: str
    """The config's key of the unit of work's section."""
    labeler: Labeler
    model: str
    prompts: Sequence[str]
    answers: Sequence[str]
    count: int
    decoding: Decoding


def answering_size(asked: Asked, device: Device) -> StageSize:
    """Of beams, or of class logits, as the config has it, with the unit of work that would make it fit."""
    found = _answering(asked, asked.decoding.batch_size, device)
    fitting = nearest_batch(asked.decoding.batch_size, lambda size: _answering(asked, size, device).fits(device))
    advice = {} if fitting == asked.decoding.batch_size else {f"{asked.section}.batch_size": fitting}
    return replace(found, advice=None if fitting is None else advice)


def scoring_size(asked: Asked, candidates: float, device: Device) -> StageSize:
    """Of scores of so many candidates a prompt, each as long as an answer. A forward pass has a size of its own: no advice."""
    model, tokens, on_gpu = _facts(asked, asked.decoding.max_new_tokens or sys.maxsize)
    size, new = model_size(model), candidates * tokens.answer
    text = tokens.prompt + new
    if not packable(model):
        text = candidates * (tokens.prompt + tokens.answer)
    budget = BATCH_TOKENS["cuda" if on_gpu else "cpu"]
    longest = tokens.longest_prompt + round(new)
    batch = MicroBatch(rows=max(1, budget // longest), width=longest, targets=round(new) * max(1, budget // longest))
    peak = _scoring_peak(model, batch, device.card_bytes if on_gpu else None)
    found = _stage(asked, size, peak, tokens=asked.count * text, flops=2 * asked.count * (size.body * text + size.head * new))
    return found if found.fits(device) else replace(found, advice=None)


def _answering(asked: Asked, batch_size: int, device: Device) -> StageSize:
    decoding = asked.decoding
    if decoding.beams is None or decoding.max_new_tokens is None:
        return _classifying(asked, device)
    model, tokens, on_gpu = _facts(asked, decoding.max_new_tokens)
    size, prompts = model_size(model), min(batch_size, asked.count)
    batch = BeamBatch(
        prompts=prompts, width=tokens.longest_prompt, beams=decoding.beams, max_new_tokens=decoding.max_new_tokens,
        shares_prompt=packable(model),
    )  # fmt: skip
    peak = beams_peak(size, sized_layer(model, False, True), batch, weight_bytes=model.dtype.itemsize, on_gpu=on_gpu)
    new = decoding.beams * tokens.answer
    units = -(-asked.count // batch_size)
    return _stage(
        asked, size, peak, tokens=asked.count * (tokens.prompt + new),
        flops=2 * asked.count * (size.body * (tokens.prompt + new) + size.head * (1 + new)),
        traffic=units * tokens.longest_answer * (peak.weights + peak.cache),
    )  # fmt: skip


def _classifying(asked: Asked, device: Device) -> StageSize:
    model, tokens, on_gpu = _facts(asked, None)
    size, budget = model_size(model), BATCH_TOKENS["cuda" if on_gpu else "cpu"]
    rows = max(1, budget // tokens.longest_prompt)
    batch = MicroBatch(rows=rows, width=tokens.longest_prompt, targets=rows)
    peak = _scoring_peak(model, batch, device.card_bytes if on_gpu else None)
    flops = 2 * asked.count * (size.body * tokens.prompt + size.head)
    return _stage(asked, size, peak, tokens=asked.count * tokens.prompt, flops=flops)


def _scoring_peak(model: PreTrainedModel, batch: MicroBatch, card_bytes: float | None) -> DecodingPeak:
    layer = sized_layer(model, False, True)
    return scoring_peak(model_size(model), layer, batch, weight_bytes=model.dtype.itemsize, card_bytes=card_bytes)


def _facts(asked: Asked, most: int | None) -> tuple[PreTrainedModel, TextTokens, bool]:
    """The model, its tokens of the sample, and whether it is on a GPU."""
    labeler, on_gpu = asked.labeler, asked.labeler.actors.num_gpus > 0
    task, half = labeler.model.task, labeler.precision == "bf16"
    classes = 0 if task.form == "text" or labeler.model.scores_classes else len(task.classes)
    model = sized_model(asked.model, classes, torch.bfloat16 if half else torch.float32, on_gpu)
    tokens = text_tokens(asked.prompts, asked.answers, sized_tokenizer(asked.model), chat=task.chat, most=most)
    return model, tokens, on_gpu


def _stage(asked: Asked, size: ModelSize, peak: DecodingPeak, *, tokens: float, flops: float, traffic: float = 0.0) -> StageSize:
    return StageSize(
        stage=asked.stage,
        model=asked.model,
        parameters=size.parameters,
        gpus=asked.labeler.actors.num_gpus,
        memory=dict(vars(peak)),
        tokens=tokens,
        flops=flops,
        traffic=traffic,
    )
