"""The teachers: a model loaded once, units of prompts in, their answers out. They run in the actors of `units.run_pass`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from raw2s.decoding import word_scores
from raw2s.decoding.beams import Candidate, generate_beams
from raw2s.decoding.doubt import answer_doubts
from raw2s.decoding.scoring import class_logits, target_logprobs
from raw2s.form import FormName
from raw2s.labeling.prompts import Unit
from raw2s.labeling.units import Pool
from raw2s.labels.table import Answer
from raw2s.methods import LossSection, evidence_by
from raw2s.models.layers import use_gpu_kernels
from raw2s.models.load import load_model_config, load_to_answer, load_tokenizer, quiet_transformers
from raw2s.storage import Place
from raw2s.storage.copies import filled, here


def load(pool: Pool, form: FormName, classes: tuple[str, ...] = ()) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The pool's model on this actor's device, in its precision, and its tokenizer."""
    quiet_transformers()
    source = here(pool.model)
    model, _ = load_to_answer(source, form, classes, precision=pool.precision, cuda=bool(pool.actors.num_gpus))
    return model, load_tokenizer(source)


def load_to_score(pool: Pool, form: FormName, classes: tuple[str, ...] = ()) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """As `load`, for forward passes without a cache: compiled on CUDA, which takes seconds at the first two batches."""
    model, tokenizer = load(pool, form, classes)
    if model.device.type == "cuda":
        use_gpu_kernels(model)
    return model, tokenizer


def convert_model(model: str, folder: Place) -> None:
    """The model for CTranslate2, in `folder`. Raises ValueError where that cannot be done."""
    from raw2s.decoding import ctranslate2_beams  # an optional package  # noqa: PLC0415

    with filled(folder) as own:
        ctranslate2_beams.convert(here(model), own)


class BeamActor:
    """`table.BEAMS`: per prompt the model's top beams, best first; by CTranslate2 where the pool has a converted model."""

    def __init__(self, pool: Pool, beams: int, max_new_tokens: int) -> None:
        self.generate: Callable[..., list[list[Candidate]]]
        if pool.converted is None:
            self.generate = partial(generate_beams, *load(pool, "text"))
        else:
            from raw2s.decoding import ctranslate2_beams  # an optional package  # noqa: PLC0415

            converted, source = Path(here(str(pool.converted))), here(pool.model)
            generator = ctranslate2_beams.load_converted(converted, cuda=bool(pool.actors.num_gpus))
            model = load_model_config(source), load_tokenizer(source)
            self.generate = partial(ctranslate2_beams.generate_beams, generator, *model)
        self.generate = partial(self.generate, beams=beams, max_new_tokens=max_new_tokens, chat=pool.chat)

    def __call__(self, unit: Unit) -> list[Answer]:
        return [
            {
                "texts": [c.text for c in candidates],
                "logprobs": [c.token_logprob_sum for c in candidates],
                "tokens": [c.tokens for c in candidates],
                "ended": [c.ended for c in candidates],
            }
            for candidates in self.generate(unit["prompts"])
        ]


class ScoreActor:
    """`table.SCORES`: per prompt and candidate text the word log-probabilities (end marker last) and the token count."""

    def __init__(self, pool: Pool) -> None:
        self.score = partial(target_logprobs, *load_to_score(pool, "text"), chat=pool.chat)

    def __call__(self, unit: Unit) -> list[Answer]:
        scored = self.score(unit["prompts"], unit["candidates"])
        return [
            {
                "words": [word_scores(text, s.offsets, s.logprobs) for text, s in zip(texts, scores, strict=True)],
                "tokens": [len(s.logprobs) for s in scores],
            }
            for texts, scores in zip(unit["candidates"], scored, strict=True)
        ]


class DoubtActor:
    """`table.DOUBTS`: per prompt and its one candidate, the model's own answer, how certain it was at every token."""

    def __init__(self, pool: Pool, loss: LossSection | None) -> None:
        """`loss`: what the model was trained with, where that says how its logits are read."""
        self.doubts = partial(answer_doubts, *load_to_score(pool, "text"), evidence=evidence_by(loss), chat=pool.chat)

    def __call__(self, unit: Unit) -> list[Answer]:
        return list(self.doubts(unit["prompts"], [text for (text,) in unit["candidates"]]))


class ClassActor:
    """`table.CLASSES`: per prompt the classifier's logits."""

    def __init__(self, pool: Pool, classes: tuple[str, ...]) -> None:
        self.logits = partial(class_logits, *load_to_score(pool, "classes", classes), chat=pool.chat)

    def __call__(self, unit: Unit) -> list[Answer]:
        return [{"logits": row.tolist()} for row in self.logits(unit["prompts"])]


class NameActor:
    """`table.CLASSES` of a model without a classifier's head: the log-probability of every class's name after the prompt."""

    def __init__(self, pool: Pool, classes: tuple[str, ...]) -> None:
        self.score = partial(target_logprobs, *load_to_score(pool, "text"), chat=pool.chat)
        self.classes = list(classes)

    def __call__(self, unit: Unit) -> list[Answer]:
        scored = self.score(unit["prompts"], [self.classes] * len(unit["prompts"]))
        return [{"logits": [sum(score.logprobs) for score in scores]} for scores in scored]
