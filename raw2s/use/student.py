"""A student that answers: its folder or hub id loaded, rows in, answers with their probability and doubt out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from raw2s.decoding.beams import generate_beams
from raw2s.decoding.bridge import word_scores, words
from raw2s.decoding.doubt import answer_doubts
from raw2s.decoding.scoring import class_logits
from raw2s.decoding.tokens import encode_target
from raw2s.losses import EvidenceOf, doubts, log_prediction
from raw2s.models.load import load_to_answer, load_tokenizer
from raw2s.use.sheet import Row, Sheet, find_sheet


@dataclass(frozen=True, kw_only=True)
class Word:
    word: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a student says to a row. Doubt is in nats, of text the mean over its tokens; None without a Dirichlet."""

    answer: str
    """The name of a class, or a text."""
    probability: float
    """Of the answer: of the class, or of the whole text with its end marker."""
    entropy: float
    """Of the prediction: `expected_entropy` + `mutual_information`."""
    expected_entropy: float | None
    """What the answer leaves open: the mean entropy of the distributions that the Dirichlet holds possible."""
    mutual_information: float | None
    """What the model has no evidence for: how far those distributions differ."""
    vacuity: float | None
    """K/S, in (0, 1] for EDL; compare it within one set of classes only."""
    probabilities: dict[str, float] | None = None
    """Of every class."""
    words: tuple[Word, ...] | None = None
    """Of text: each word's probability given those before it."""
    logprob: float | None = None
    """Of text: the log of `probability`, which a long text's may be too small for."""
    ended: bool | None = None
    """Of text: whether it ended before the longest answer."""


@dataclass(frozen=True, kw_only=True)
class Student:
    """`Student.load("folder or hub id").answer([{"text": "wake me at nine"}])`."""

    sheet: Sheet
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    evidence: EvidenceOf | None
    """How its logits are read as a Dirichlet; None for a softmax."""

    @classmethod
    def load(cls, source: str | Path) -> "Student":
        """From a folder that `raw2s export` made, or a hub id of one, onto the GPU if there is one; safetensors only, no remote code.

        Raises ValueError, in one line, where there is no such folder, or its weights are not whole.
        """
        return cls.of(*find_sheet(str(source)))

    @classmethod
    def of(cls, folder: Path, sheet: Sheet) -> "Student":
        """The model in `folder`, read as `sheet` says. Raises as `load`."""
        try:
            classes = tuple(sheet.classes)
            model, missing = load_to_answer(str(folder), sheet.form, classes, precision="auto", cuda=torch.cuda.is_available())
            tokenizer = load_tokenizer(str(folder))
        except (ValueError, RuntimeError) as error:  # of a missing file, or of weights of another shape
            reason = str(error.__cause__ or error).splitlines()[0]
            raise ValueError(
                f"{folder}: the model cannot be loaded ({reason}); make the folder again with `raw2s export`"
            ) from None
        if missing:
            raise ValueError(f"{folder}: the weights lack {min(missing)}; make the folder again with `raw2s export`")
        return cls(sheet=sheet, model=model, tokenizer=tokenizer, evidence=sheet.evidence)

    def answer(self, rows: Sequence[Row]) -> list[Answer]:
        """An answer a row, in order. Raises ValueError for a row that does not fill the template, or is too long."""
        return self.answer_prompts([self.sheet.prompt_of(row) for row in rows])

    def answer_prompts(self, prompts: Sequence[str]) -> list[Answer]:
        """An answer a prompt, `batch_size` of them at a time. Raises ValueError where one is too long."""
        answers = _class_answers if self.sheet.form == "classes" else _text_answers
        size = self.sheet.batch_size
        return [a for start in range(0, len(prompts), size) for a in answers(self, list(prompts[start : start + size]))]


def _class_answers(student: Student, prompts: list[str]) -> list[Answer]:
    sheet = student.sheet
    logits_PK = torch.from_numpy(class_logits(student.model, student.tokenizer, prompts, chat=sheet.chat).astype(np.float64))
    probability_PK = log_prediction(logits_PK, student.evidence).exp()
    found = {name: value.tolist() for name, value in doubts(logits_PK, student.evidence).items()}
    answers = []
    for number, own in enumerate(probability_PK.tolist()):
        probabilities = dict(zip(sheet.classes, own, strict=True))
        name = max(probabilities, key=probabilities.__getitem__)
        measured = _measures({measure: values[number] for measure, values in found.items()})
        answers.append(Answer(answer=name, probability=probabilities[name], probabilities=probabilities, **measured))
    return answers


def _text_answers(student: Student, prompts: list[str]) -> list[Answer]:
    """The best beam of each prompt, and what a teacher-forced pass over it says, which reads an evidential student's Dirichlet."""
    sheet, model, tokenizer = student.sheet, student.model, student.tokenizer
    assert sheet.beams is not None and sheet.max_new_tokens is not None, "text has beams"
    beams = generate_beams(model, tokenizer, prompts, beams=sheet.beams, max_new_tokens=sheet.max_new_tokens, chat=sheet.chat)
    best = [candidates[0] for candidates in beams]
    texts = [candidate.text for candidate in best]
    of_tokens = answer_doubts(model, tokenizer, prompts, texts, evidence=student.evidence, chat=sheet.chat)
    answers = []
    for candidate, found in zip(best, of_tokens, strict=True):
        text, logprobs = candidate.text, [-doubt for doubt in found["choice"]]
        scores = word_scores(text, encode_target(tokenizer, text)[1], logprobs)
        of_words = zip(words(text), np.exp(scores[:-1]).tolist(), strict=True)
        answers.append(
            Answer(
                answer=text,
                probability=float(np.exp(sum(logprobs))),
                logprob=sum(logprobs),
                words=tuple(Word(word=text[start:end], probability=p) for (start, end), p in of_words),
                ended=candidate.ended,
                **_measures({measure: float(np.mean(values)) for measure, values in found.items()}),
            )
        )
    return answers


def _measures(found: Mapping[str, float]) -> dict[str, Any]:
    """The fields of an `Answer` from `raw2s.losses.doubts`."""
    entropy, mutual = found["entropy"], found.get("mutual_information")
    expected = None if mutual is None else max(0.0, entropy - mutual)
    return {
        "entropy": entropy,
        "expected_entropy": expected,
        "mutual_information": mutual,
        "vacuity": found.get("vacuity"),
    }
