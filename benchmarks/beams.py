"""Beams: our search, which forwards a prompt once, against Hugging Face `generate`, with the CTranslate2 backend beside it."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import harness
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GenerationConfig, GPT2Config, PreTrainedTokenizerFast

from raw2s.decoding import beams as beams_module
from raw2s.decoding import ctranslate2_beams
from raw2s.decoding.beams import generate_beams

PROMPTS, NEW_TOKENS = 4, 32
SHAPES = [(256, 4), (256, 8)]
"""Tokens of a prompt, beams."""
Found = list[list[tuple[str, float]]]
"""Per prompt (ids, mean log-probability), best first."""


def numbered_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Token i is the word `i`; the last ends a text."""
    words = Tokenizer(models.WordLevel({str(i): i for i in range(vocabulary)}, unk_token="0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token=str(vocabulary - 1))


def spell(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    return " ".join(map(str, ids))


def measure(repeats: int) -> list[dict[str, Any]]:
    """CPU seconds of one thread, variants in turn, the least of the repeats. Raises AssertionError unless all find the same beams."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(GPT2Config(n_embd=256, n_layer=6, n_head=4)).eval()
    tokenizer = numbered_tokenizer(model.config.vocab_size)
    with (
        # A candidate's text is its ids.
        patch.object(beams_module, "decode_target", spell),
        patch.object(ctranslate2_beams, "decode_target", spell),
        tempfile.TemporaryDirectory() as folder,
    ):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        converted = Path(folder) / "converted"
        ctranslate2_beams.convert(folder, converted)
        generator = ctranslate2_beams.load_converted(converted, cuda=False)
        return [_measure_shape(model, tokenizer, generator, *shape, repeats) for shape in SHAPES]


def _measure_shape(model: Any, tokenizer: Any, generator: Any, tokens: int, beams: int, repeats: int) -> dict[str, Any]:
    ids_BP = torch.randint(model.config.vocab_size - 1, (PROMPTS, tokens))
    prompts = [" ".join(map(str, ids)) for ids in ids_BP.tolist()]
    options = {"beams": beams, "max_new_tokens": NEW_TOKENS}
    settings = GenerationConfig(
        num_beams=beams, num_return_sequences=beams, max_new_tokens=NEW_TOKENS, do_sample=False, length_penalty=1.0,
        early_stopping=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id,
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip

    def hugging_face() -> Found:
        output = model.generate(input_ids=ids_BP, attention_mask=torch.ones_like(ids_BP), generation_config=settings)
        texts = [" ".join(map(str, ids)) for ids in output.sequences[:, tokens:].tolist()]
        found = list(zip(texts, output.sequences_scores.tolist(), strict=True))
        return [sorted(found[at : at + beams], key=lambda pair: -pair[1]) for at in range(0, len(found), beams)]

    def named(candidates: list[list[Any]]) -> Found:
        return [[(c.text, c.mean_logprob) for c in each] for each in candidates]

    variants: dict[str, Callable[[], Found]] = {
        "raw2s": lambda: named(generate_beams(model, tokenizer, prompts, **options)),
        "generate": hugging_face,
        "ctranslate2": lambda: named(ctranslate2_beams.generate_beams(generator, model.config, tokenizer, prompts, **options)),
    }
    with torch.inference_mode():
        least = harness.least(harness.timed(variants, repeats, parity=_same))
    return {
        "shape": {"prompts": PROMPTS, "prompt_tokens": tokens, "beams": beams, "new_tokens": NEW_TOKENS},
        "parameters": model.num_parameters(), "cpu_seconds": least,
        "times_faster_than_generate": least["generate"] / least["raw2s"],
        "ctranslate2_times_faster_than_generate": least["generate"] / least["ctranslate2"],
    }  # fmt: skip


def _same(found: dict[str, Found]) -> None:
    for name, beams_found in found.items():
        for each, expected in zip(beams_found, found["generate"], strict=True):
            assert [text for text, _ in each] == [text for text, _ in expected], f"{name} finds other beams"
            assert max(abs(a - b) for (_, a), (_, b) in zip(each, expected, strict=True)) < 1e-4, f"{name} scores otherwise"
