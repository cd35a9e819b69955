"""A student's answers: their probabilities are those of its losses, and those of transformers where these can give them."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_students import CLASSES, EDL
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, pipeline

import raw2s
from raw2s.losses import evidence_of
from raw2s.use.sheet import FILE

ROWS = [{"title": "mail", "body": body} for body in ("the invoice please", "my parcel is late, again", "I forgot it", "hello")]
PROMPTS = [f"{row['title']}: {row['body']}\n" for row in ROWS]
Make = Callable[..., Path]


def logits_of(folder: Path, prompt: str) -> torch.Tensor:
    """By transformers alone."""
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    return model(**AutoTokenizer.from_pretrained(folder)(prompt, return_tensors="pt")).logits[0].double().detach()


def test_an_evidential_students_probabilities_are_its_dirichlets_mean(folder_of: Make):
    folder = folder_of(loss=EDL)
    for prompt, answer in zip(PROMPTS, raw2s.Student.load(folder).answer(ROWS), strict=True):
        alpha = 1 + evidence_of(logits_of(folder, prompt), "exp", 10.0)
        mean = (alpha / alpha.sum()).tolist()
        assert answer.probabilities == pytest.approx(dict(zip(CLASSES, mean, strict=True)), abs=1e-5)
        assert answer.probability == max(answer.probabilities.values()) == answer.probabilities[answer.answer]
        assert sum(answer.probabilities.values()) == pytest.approx(1)
        assert answer.vacuity == pytest.approx(3 / float(alpha.sum()), rel=1e-4)
        assert answer.entropy == pytest.approx(-sum(p * math.log(p) for p in mean), abs=1e-5)
        assert answer.entropy == pytest.approx(answer.expected_entropy + answer.mutual_information)
        drawn = np.random.default_rng(0).dirichlet(alpha.numpy(), size=20_000)
        assert answer.expected_entropy == pytest.approx(-(drawn * np.log(drawn.clip(1e-300))).sum(1).mean(), abs=0.02)


def test_a_cross_entropy_students_are_those_of_a_pipeline(folder_of: Make):
    folder = folder_of()
    answers = raw2s.Student.load(str(folder)).answer(ROWS)
    of_transformers = pipeline("text-classification", model=str(folder), top_k=None)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        told = {one["label"]: one["score"] for one in of_transformers([prompt])[0]}
        assert answer.probabilities == pytest.approx(told, abs=1e-5)
        assert (answer.vacuity, answer.mutual_information, answer.words) == (None, None, None)


def test_the_line_end_of_the_template_is_read(folder_of: Make):
    with_it, without = (
        raw2s.Student.load(folder_of(prompt=prompt)).answer(ROWS) for prompt in ("{title}: {body}\n", "{title}: {body}")
    )
    assert with_it[0].probabilities != pytest.approx(without[0].probabilities, abs=1e-3)


@pytest.mark.parametrize("loss", [None, {"name": "edl", "evidence": "softplus"}], ids=["softmax", "dirichlet"])
def test_a_text_has_its_words_probabilities_and_its_own(folder_of: Make, loss: dict[str, Any] | None):
    folder = folder_of(form="text", loss=loss, prompt="{text}\n")
    answers = raw2s.Student.load(folder).answer(["wake me at nine", "play some jazz in the kitchen"])
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    for prompt, answer in zip(["wake me at nine\n", "play some jazz in the kitchen\n"], answers, strict=True):
        before = tokenizer(prompt)["input_ids"]
        own = [*tokenizer(answer.answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        logits = model(torch.tensor([before + own])).logits[0, len(before) - 1 : -1].double().detach()
        alpha = logits.exp() if loss is None else 1 + evidence_of(logits, "softplus", None)
        of_tokens = (alpha / alpha.sum(-1, keepdim=True))[range(len(own)), own]
        assert answer.logprob == pytest.approx(float(of_tokens.log().sum()), abs=1e-3)
        assert answer.probability == pytest.approx(math.exp(answer.logprob))
        said = math.prod(word.probability for word in answer.words)
        assert said * float(of_tokens[-1]) == pytest.approx(answer.probability, rel=1e-3)
        assert "".join(word.word for word in answer.words) == "".join(answer.answer.split())
        assert (answer.vacuity is None) == (loss is None)


def test_a_folder_without_its_sheet_or_its_weights_is_refused(folder_of: Make, classifier: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"no raw2s.json here, .*; give a folder that `raw2s export` made"):
        raw2s.Student.load(classifier)
    headless = folder_of(form="text", classes=CLASSES)
    (headless / FILE).write_text(json.dumps(json.loads((folder_of() / FILE).read_text())))
    with pytest.raises(ValueError, match=r"the weights lack score.weight; make the folder again"):
        raw2s.Student.load(headless)
    folder = folder_of()
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"cannot be loaded \(.*safetensors.*\); make the folder again"):
        raw2s.Student.load(folder)
    with pytest.raises(ValueError, match=r"no such folder, and no hub id org/name; correct it"):
        raw2s.Student.load("not/a/hub id")


def test_a_sheet_that_is_not_whole_is_named_with_its_field(folder_of: Make):
    folder = folder_of()
    sheet = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps({**sheet, "chat": "perhaps"}))
    with pytest.raises(ValueError, match=r"raw2s.json: chat: .*; make the folder again"):
        raw2s.Student.load(folder)


def test_a_hub_id_is_fetched_without_pickles_and_code(folder_of: Make, monkeypatch: pytest.MonkeyPatch):
    folder, asked = folder_of(loss=EDL), []

    def snapshot_download(repository: str, allow_patterns: list[str]) -> str:
        asked.append((repository, allow_patterns))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    there, here = (raw2s.Student.load(source).answer(ROWS) for source in ("org/student", folder))
    assert there == here
    ((repository, patterns),) = asked
    assert repository == "org/student"
    assert not any(pattern.endswith(("bin", "py", "pt", "*")) for pattern in patterns)


def test_a_hubs_folder_has_no_module_imported(folder_of: Make, monkeypatch: pytest.MonkeyPatch):
    folder = folder_of(loss={"name": "somewhere:LOSS"})
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(folder))
    with pytest.raises(ValueError, match=r"^org/student: its loss is code outside raw2s; fetch the folder"):
        raw2s.Student.load("org/student")
    with pytest.raises(ValueError, match=r"'somewhere:LOSS' cannot be imported"):
        raw2s.Student.load(folder)


def test_a_hub_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch):
    def snapshot_download(*_: object, **__: object) -> str:
        raise ConnectionError("no route\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(ValueError, match=r"^org/student: no folder here, and the hub does not give it \(no route\); correct it"):
        raw2s.Student.load("org/student")


def test_a_text_alone_fills_one_column_only(folder_of: Make):
    student = raw2s.Student.load(folder_of())
    with pytest.raises(ValueError, match="does not fill the columns title, body"):
        student.answer(["hello"])
    with pytest.raises(ValueError, match=r"there is no column 'body', and there are title"):
        student.answer([{"title": "hello"}])
