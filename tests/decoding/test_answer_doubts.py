"""A model's doubt at every token of its answers, against the logits of a plain forward pass."""

from functools import partial

import pytest
import torch

from raw2s.decoding import doubt
from raw2s.decoding.doubt import answer_doubts
from raw2s.decoding.scoring import target_logprobs
from raw2s.decoding.tokens import encode_prompt, encode_target
from raw2s.losses import doubts, evidence_of

ANSWERS = {"play jazz in the kitchen:": "[genre : jazz] [place : kitchen]", "wake me up:": "", "stop:": "[time : nine am]"}
EXP = partial(evidence_of, evidence="exp", logit_clamp=None)


@pytest.mark.parametrize("evidence", [None, EXP])
def test_measures_are_those_of_the_logits_before_each_token(model, tokenizer, evidence, monkeypatch):
    monkeypatch.setattr(doubt, "ELEMENTS_AT_ONCE", 5 * model.config.vocab_size)  # several parts
    found = answer_doubts(model, tokenizer, list(ANSWERS), list(ANSWERS.values()), evidence=evidence)
    for (prompt, answer), own in zip(ANSWERS.items(), found, strict=True):
        before, (said, _) = encode_prompt(tokenizer, prompt), encode_target(tokenizer, answer)
        with torch.inference_mode():
            logits = model(torch.tensor([before + said])).logits[0, len(before) - 1 : -1].float()
        expected = doubts(logits, evidence, torch.tensor(said))
        assert own.keys() == expected.keys()
        for name, values in expected.items():
            assert own[name] == pytest.approx(values.tolist(), rel=1e-3, abs=1e-5), name


def test_of_a_softmax_the_choice_is_what_scoring_says(model, tokenizer):
    found = answer_doubts(model, tokenizer, list(ANSWERS), list(ANSWERS.values()), evidence=None)
    scored = target_logprobs(model, tokenizer, list(ANSWERS), [[answer] for answer in ANSWERS.values()])
    for own, (target,) in zip(found, scored, strict=True):
        assert own["choice"] == pytest.approx([-value for value in target.logprobs], rel=1e-4, abs=1e-5)
