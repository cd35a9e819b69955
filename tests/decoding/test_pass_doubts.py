"""What several passes that differ say of a model's doubt, against plain forward passes."""

from functools import partial
from itertools import cycle

import pytest
import torch

from raw2s.decoding import dropout
from raw2s.decoding.doubt import answer_doubts
from raw2s.decoding.dropout import answer_pass_doubts, class_pass_doubts
from raw2s.decoding.tokens import encode_prompt, encode_target
from raw2s.losses import evidence_of, log_prediction, mixture_doubts

ANSWERS = {"play jazz in the kitchen:": "[genre : jazz] [place : kitchen]", "wake me up:": "", "stop:": "[time : nine am]"}
SCALES = (1.0, 0.5, 0.2)
EXP = partial(evidence_of, evidence="exp", logit_clamp=5.0)


@pytest.fixture
def scaled(request):
    """Makes a model's passes differ: its last hidden states are each time a step of `SCALES` smaller."""

    def of(model):
        scales = cycle(SCALES)

        def scale(_decoder, _inputs, output):
            output.last_hidden_state = output.last_hidden_state * next(scales)
            return output

        request.addfinalizer(model.get_decoder().register_forward_hook(scale).remove)
        return model

    return of


@torch.inference_mode()
def expected(model, ids, evidence):
    """(tokens, 2), from one plain pass for each of the scales."""
    members = [log_prediction(model(torch.tensor([ids])).logits[0].double(), evidence) for _ in SCALES]
    return torch.stack(mixture_doubts(members), dim=-1)


@pytest.mark.parametrize("evidence", [None, EXP])
def test_measures_are_those_of_the_passes_together_at_each_token(model, tokenizer, evidence, scaled, monkeypatch):
    monkeypatch.setattr(dropout, "ELEMENTS_AT_ONCE", 5 * model.config.vocab_size)  # several parts
    asked = scaled(model), tokenizer, list(ANSWERS), list(ANSWERS.values())
    found = answer_pass_doubts(*asked, passes=len(SCALES), evidence=evidence)
    for (prompt, answer), own in zip(ANSWERS.items(), found, strict=True):
        before, (said, _) = encode_prompt(tokenizer, prompt), encode_target(tokenizer, answer)
        own_expected = expected(model, before + said, evidence)[len(before) - 1 : -1]
        torch.testing.assert_close(torch.tensor(own).double(), own_expected, rtol=1e-3, atol=1e-4)
        assert (torch.tensor(own)[:, 1] > 1e-3).any()


def test_passes_that_are_alike_disagree_about_nothing(llama, tokenizer):
    asked = llama, tokenizer, list(ANSWERS), list(ANSWERS.values())
    found = answer_pass_doubts(*asked, passes=2, evidence=None)
    for own, once in zip(found, answer_doubts(*asked, evidence=None), strict=True):
        assert [entropy for entropy, _ in own] == pytest.approx(once["entropy"], rel=1e-4, abs=1e-5)
        assert [disagreed for _, disagreed in own] == pytest.approx([0] * len(own), abs=1e-6)


@pytest.mark.parametrize("evidence", [None, EXP])
def test_a_classifiers_are_at_its_prompts_last_token(classifier, tokenizer, evidence, scaled):
    asked = scaled(classifier), tokenizer, list(ANSWERS)
    found = class_pass_doubts(*asked, passes=len(SCALES), evidence=evidence)
    plain = [expected(classifier, encode_prompt(tokenizer, prompt), evidence) for prompt in ANSWERS]
    torch.testing.assert_close(torch.tensor(found).double(), torch.stack(plain), rtol=1e-3, atol=1e-4)
