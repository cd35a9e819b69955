"""Beams by CTranslate2, an optional package: a compiled decoder that reads its own conversion of a model.

Import this module only where the package is installed. Scores are those of `beams.generate_beams`, to rounding, and so are the
hypotheses a step ends. But CTranslate2 is done with a prompt when `PATIENCE` * M of its hypotheses have ended, and not by comparing
them with the beams that run on; so among M candidates the last places may differ.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import torch
from ctranslate2.converters import TransformersConverter
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from raw2s.decoding.beams import Candidate, distinct_best_first
from raw2s.decoding.tokens import check_context, decode_target, encode_prompt

PATIENCE = 2
"""At 1 it often stops before the best candidate has ended; at more it takes longer and finds hardly any better."""
SAME_SCORE = 1e-3
"""Nats by which a token's log-probability may differ after conversion."""
CHECKED_IDS = list(range(3, 35))


def convert(model_folder: str, folder: Path) -> None:
    """Write the fp32 model in `model_folder` (Hugging Face's format) as CTranslate2 reads it into `folder`, made new.

    Raises ValueError for a model that CTranslate2 does not know, or that scores otherwise once converted.
    """
    converter = _Converter(model_folder)
    converter.convert(str(folder))
    assert converter.logprob_TV is not None
    converted = load_converted(folder, cuda=False).forward_batch([CHECKED_IDS], return_log_probs=True)
    vocabulary = converter.logprob_TV.shape[1]  # without the columns that a conversion may add
    difference = np.abs(np.array(converted)[0, :, :vocabulary] - converter.logprob_TV).max()
    if not difference < SAME_SCORE:
        raise ValueError(f"{model_folder}: converted to CTranslate2 it scores tokens up to {difference:.3g} nats otherwise")


def load_converted(folder: Path, *, cuda: bool) -> ctranslate2.Generator:
    """On as many CPU threads as OMP_NUM_THREADS says, or on the GPU."""
    return ctranslate2.Generator(str(folder), device="cuda" if cuda else "cpu", compute_type="float32")


def generate_beams(
    generator: ctranslate2.Generator,
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    *,
    beams: int,
    max_new_tokens: int,
    chat: bool = False,
) -> list[list[Candidate]]:
    """`beams.generate_beams` with a converted model; `config` and `tokenizer` are those of the model it was made from.

    Prompts of one length in tokens go as one batch: of unequal ones, CTranslate2 forwards at once only what the shortest has.
    Raises ValueError when a prompt and `max_new_tokens` exceed the model's positions.
    """
    by_length: dict[int, list[int]] = defaultdict(list)
    rows = [encode_prompt(tokenizer, prompt, chat=chat) for prompt in prompts]
    for i, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        check_context(config, len(row) + max_new_tokens, f"prompt {prompt[:60]!r} with {max_new_tokens} new tokens")
        by_length[len(row)].append(i)
    found: list[list[Candidate]] = [[] for _ in prompts]
    for batch in by_length.values():
        results = generator.generate_batch(
            [tokenizer.convert_ids_to_tokens(rows[i]) for i in batch],
            beam_size=beams, num_hypotheses=beams, patience=PATIENCE if beams > 1 else 1, length_penalty=1.0,
            max_length=max_new_tokens, end_token=[tokenizer.eos_token_id], return_end_token=True,
            include_prompt_in_result=False, return_scores=True,
        )  # fmt: skip
        for i, result in zip(batch, results, strict=True):
            hypotheses = zip(result.sequences_ids, result.scores, strict=True)
            found[i] = distinct_best_first([_candidate(tokenizer, ids, mean) for ids, mean in hypotheses])
    return found


def _candidate(tokenizer: PreTrainedTokenizerBase, ids: list[int], mean_logprob: float) -> Candidate:
    text, ended = decode_target(tokenizer, ids), ids[-1] == tokenizer.eos_token_id
    return Candidate(text, mean_logprob * len(ids), len(ids), ended)


class _Converter(TransformersConverter):
    """What a conversion lacks: old names of GPT-NeoX, tokens that a tokenizer may do without, and a check.

    It keeps what the model says to `CHECKED_IDS`.
    """

    logprob_TV: np.ndarray | None = None

    def load_model(self, model_class: Any, model_name_or_path: str, **options: Any) -> PreTrainedModel:
        model: Any = super().load_model(model_class, model_name_or_path, **options | {"dtype": torch.float32}).eval()
        if model.config.model_type == "gpt_neox":
            model.config.rotary_pct = model.config.rope_parameters["partial_rotary_factor"]
            model.embed_out = model.get_output_embeddings()
        with torch.inference_mode():  # now, for some loaders take the model apart
            self.logprob_TV = model(torch.tensor([CHECKED_IDS])).logits[0].log_softmax(dim=1).numpy()
        return model

    def load_tokenizer(self, tokenizer_class: Any, model_name_or_path: str, **options: Any) -> PreTrainedTokenizerBase:
        tokenizer: Any = super().load_tokenizer(tokenizer_class, model_name_or_path, **options)
        for name in ("bos_token", "unk_token"):  # never used, but a file without them cannot be read
            if getattr(tokenizer, name) is None:
                setattr(tokenizer, name, tokenizer.eos_token)
        return tokenizer
